"""``graphcut view``: Netron without a request to anybody else, from a server that has nothing but the one file."""

from __future__ import annotations

import http.client
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphcut import cli
from graphcut.cli import view
from graphcut.errors import DependencyError, UsageError
from graphcut.report import netron
from tests.cli.test_cli import PREPARED
from tests.support import browser as chromium
from tests.support import nets
from tests.support.browser import Browser

LATER = """
const Real = Date;
window.Date = class extends Real {
  constructor(...given) { given.length ? super(...given) : super(Real.now() + 2 * 365 * 86400000); }
};
"""
"""Sets the page's clock two years on."""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("viewed")
    nets.saved(nets.residual(softmax=True), folder)
    words = ["split", folder / "model.onnx", "-o", folder / "out", "--segments", 3, "-q", "--calibration", "random"]
    assert cli.main([str(word) for word in [*words, "--samples", 1, "--no-report", *PREPARED]]) == 0
    return folder / "out"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("secret")
    made = tmp_path / "seg<1>&.onnx"
    made.write_bytes(b"graph")
    return made


def answer(address: str, path: str, host: str | None = None, method: str = "GET") -> tuple[int, bytes, dict[str, str]]:
    """The status, body and headers of a request, its path as it is."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=10)
    connection.putrequest(method, path, skip_host=host is not None)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    given = connection.getresponse()
    return given.status, given.read(), {name.lower(): value for name, value in given.getheaders()}


def test_a_file_is_served_until_the_end_of_the_block(file: Path) -> None:
    with netron.serving(file, browser=False) as address:
        assert re.fullmatch(r"http://localhost:\d+", address)
        assert answer(address, "/data/seg%3C1%3E&.onnx")[:2] == (200, b"graph")
        port = int(address.rpartition(":")[2])
        with pytest.raises(UsageError, match=f"port {port} cannot be used"), netron.serving(file, port=port):
            pytest.fail("two servers on one port")
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        urllib.request.urlopen(address, timeout=10)
    with pytest.raises(UsageError, match="port 99999 cannot be used"), netron.serving(file, port=99999):
        pytest.fail("no such port")
    with pytest.raises(UsageError, match=r"host no-such-host\.invalid cannot be used"):
        netron.serving(file, host="no-such-host.invalid", browser=False).__enter__()
    with pytest.raises(UsageError, match="is missing"), netron.serving(file.with_name("none")):
        pytest.fail("no such file")


def test_nothing_but_the_one_file_is_served(file: Path) -> None:
    with netron.serving(file, browser=False) as address:
        for path in (
            "/data/secret.txt",
            "/data/../secret.txt",
            "/data/..%2fsecret.txt",
            "/secret.txt",
            "/../secret.txt",
            "//etc/passwd",
            "/data/%00",
            "/server.py",
            "/__init__.py",
            "/__pycache__/server.cpython-312.pyc",
            "/..%2fnetron/view.js",
            "/data/",
        ):
            status, body, _ = answer(address, path)
            assert status == 404, path
            assert b"secret" not in body.replace(b"secret.txt", b"")
        assert answer(address, "/view.js")[0] == 200
        assert answer(address, "/data/seg%3C1%3E&.onnx", method="HEAD")[:2] == (200, b"")
        assert answer(address, "/", method="POST")[0] == 501


def test_every_answer_has_the_policy(file: Path) -> None:
    with netron.serving(file, browser=False) as address:
        for path in ("/", "/index.html", "/view.js", "/data/seg%3C1%3E&.onnx", "/none"):
            _, _, headers = answer(address, path)
            assert headers["content-security-policy"] == netron.POLICY
            assert headers["x-content-type-options"] == "nosniff"
    assert "http" not in netron.POLICY
    assert "unsafe-eval" not in netron.POLICY
    assert re.search(r"script-src 'self';", netron.POLICY)


def test_another_host_is_refused(file: Path) -> None:
    with netron.serving(file, browser=False) as address:
        port = address.rpartition(":")[2]
        for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "", "10.0.0.1", "localhost:1:2"):
            assert answer(address, "/data/seg%3C1%3E&.onnx", host)[0] == 421, host
        for host in (f"localhost:{port}", "127.0.0.1", f"[::1]:{port}", "LOCALHOST"):
            assert answer(address, "/", host)[0] == 200, host


def test_hosts_of_a_server_for_other_machines() -> None:
    name = socket.gethostname()
    assert netron.is_own("192.168.1.20:8080", "0.0.0.0")
    assert netron.is_own(f"{name}:8080", "0.0.0.0")
    assert netron.is_own("raspberrypi.fritz.box:8080", "raspberrypi.fritz.box")
    assert not netron.is_own("evil.example:8080", "0.0.0.0")
    assert not netron.is_own("evil.example", "192.168.1.20")
    assert not netron.is_own("192.168.1.21", "192.168.1.20")


def test_names_are_escaped_in_the_page(file: Path) -> None:
    with netron.serving(file, browser=False) as address:
        page = answer(address, "/")[1].decode()
    assert "seg<1>" not in page
    assert 'content="seg&lt;1&gt;&amp;.onnx"' in page
    assert 'content="/data/seg%3C1%3E%26.onnx"' in page


def test_a_netron_without_a_start_page_is_told(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netron").mkdir()
    (tmp_path / "netron/__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DependencyError, match="has no start page"), netron.serving(file, browser=False):
        pytest.fail("nothing to serve")


def test_segments_of_the_operators(out: Path) -> None:
    def chosen(*words: str) -> tuple[str, tuple[int, ...]]:
        file, segments = view.chosen_file(cli._parser().parse_args(["view", str(out), *words]))
        return file.name, segments

    name, segments = chosen()
    assert name == "unsplit_int8.tflite"
    assert set(segments) == {1, 2, 3}
    assert list(segments) == sorted(segments)
    name, tail = chosen("--tail", "2")
    assert name == "tail_seg2_to_3_int8.tflite"
    assert tail == tuple(each for each in segments if each > 1)
    assert chosen("--segment", "2") == ("seg2_int8.tflite", ())


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.opened() as started:
        started.open("about:blank")
        started.requests()
        yield started


def drawn(browser: Browser, address: str) -> None:
    """Open Netron and wait until it has drawn the model."""
    browser.requests()
    browser.console()
    browser.open(address)
    deadline = time.monotonic() + 60
    while not browser.run("return document.querySelectorAll('.node-item-type').length"):
        assert time.monotonic() < deadline, browser.run("return document.body.innerText")
        time.sleep(0.2)


@pytest.mark.browser
@pytest.mark.skipif(bool(chromium.MISSING), reason=chromium.MISSING)
@pytest.mark.parametrize("words", [(), ("--segment", "1", "--onnx"), ("--segment", "3")])
def test_netron_asks_nobody_else(browser: Browser, out: Path, words: tuple[str, ...]) -> None:
    file, segments = view.chosen_file(cli._parser().parse_args(["view", str(out), *words]))
    with netron.serving(file, browser=False, segments=segments) as address:
        drawn(browser, address)
        time.sleep(1.0)
        asked = [each for each in browser.requests() if not each.startswith(("data:", "blob:", "chrome"))]
        assert f"{address}/" in asked
        assert [each for each in asked if not each.startswith(f"{address}/")] == []
        assert browser.console() == []
        said = browser.run("return document.body.innerText")
        assert "cookies" not in said
        assert browser.run("return document.body.className").split() == ["default"]
        colours = browser.run(
            "return [...document.querySelectorAll('.node')].filter(each => each.querySelector('.node-item-type'))"
            ".map(each => getComputedStyle(each.querySelector('.node-item-type path')).fill)"
        )
        own = [f"rgb({int(c[1:3], 16)}, {int(c[3:5], 16)}, {int(c[5:7], 16)})" for c in netron.COLOURS]
        if segments:
            assert colours == [own[segment - 1] for segment in segments]
            assert browser.run("return document.getElementById('graphcut-segments').innerText").split() == [
                "1",
                "2",
                "3",
            ]
        else:
            assert not set(colours) & set(own)


@pytest.mark.browser
@pytest.mark.skipif(bool(chromium.MISSING), reason=chromium.MISSING)
def test_netron_is_not_too_old_in_two_years(out: Path) -> None:
    with chromium.opened() as started, netron.serving(out / "unsplit/unsplit_int8.tflite", browser=False) as address:
        started.devtools("Page.addScriptToEvaluateOnNewDocument", source=LATER)
        drawn(started, address)
        assert started.run("return new Date().getFullYear()") > time.gmtime().tm_year
        assert "update" not in started.run("return document.body.innerText")
