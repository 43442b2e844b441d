"""The report in Chromium: nothing is asked for, nothing is on the console, switches work, nothing covers anything."""

from __future__ import annotations

import re
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from graphcut.report.html import page
from tests.support import browser as chromium
from tests.support.browser import CONTRAST, OVERLAPS, Browser
from tests.support.made_facts import HOSTILE, facts

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(chromium.MISSING), reason=chromium.MISSING)]

WIDTHS = (360, 800, 1600)
FILL = "return getComputedStyle(document.querySelectorAll('#strip .bars .op')[arguments[0]]).fill"


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads: Path) -> Iterator[Browser]:
    with chromium.opened(downloads) as started:
        yield started


@pytest.fixture
def shown(browser: Browser, tmp_path: Path) -> Browser:
    """A browser that shows a report of seven segments."""
    show(browser, tmp_path, page.render(facts()))
    return browser


def show(browser: Browser, folder: Path, text: str) -> str:
    file = folder / "report.html"
    file.write_text(text, encoding="utf-8")
    browser.resize(1200)
    browser.requests()
    browser.console()
    browser.open(file.as_uri())
    return file.as_uri()


def choose(browser: Browser, value: str) -> None:
    browser.run("document.querySelector(`input[value=${arguments[0]}]`).click()", value)


def test_nothing_is_asked_for_and_the_console_is_empty(browser: Browser, tmp_path: Path) -> None:
    address = show(browser, tmp_path, page.render(facts()))
    for value in ("db", "chip", "time", "segment"):
        choose(browser, value)
    browser.run("document.getElementById('theme').click()")
    asked = [each for each in browser.requests() if not each.startswith("data:")]
    assert asked == [address]
    assert browser.console() == []


def test_hostile_names_run_nothing(browser: Browser, tmp_path: Path) -> None:
    name = HOSTILE.replace("{", "{{").replace("}", "}}") + "{}"
    address = show(browser, tmp_path, page.render(facts(k=3, operators=3, name=name)))
    time.sleep(0.3)
    assert browser.run("return window.owned === undefined") is True
    assert [each for each in browser.requests() if not each.startswith("data:")] == [address]
    assert browser.console() == []


class Asked(BaseHTTPRequestHandler):
    """Counts what it is asked for."""

    paths: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.paths.append(self.path)
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


def test_the_policy_stops_what_would_load_or_run(shown: Browser) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Asked) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        shown.run(
            "const script = document.createElement('script'); script.textContent = 'window.owned = 1';"
            "document.body.append(script);"
            "const image = new Image(); image.src = arguments[0]; document.body.append(image);",
            f"http://127.0.0.1:{server.server_port}/picture.png",
        )
        time.sleep(0.5)
        server.shutdown()
        thread.join()
    assert shown.run("return window.owned === undefined") is True
    refused = " ".join(shown.console())
    assert "script-src" in refused
    assert "img-src" in refused
    assert Asked.paths == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["seven", "one", "forty", "long names", "compared"])
def test_nothing_covers_anything(browser: Browser, tmp_path: Path, width: int, kind: str) -> None:
    text = {
        "seven": lambda: page.render(facts()),
        "one": lambda: page.render(replace(facts(k=1, operators=3), combinations=())),
        "forty": lambda: page.render(facts(k=40, operators=4)),
        "long names": lambda: page.render(facts(k=9, name="model/backbone/stage_{}/a_very_long_name_of_a_layer/add_1")),
        "compared": lambda: page.render_comparison({"a": facts(k=3), "some/long/path/to/an/out/folder": facts(k=9)}),
    }[kind]()
    show(browser, tmp_path, text)
    browser.resize(width)
    assert browser.run(OVERLAPS) == []


def test_every_figure_is_drawn(shown: Browser) -> None:
    boxes = shown.run(
        "return Object.fromEntries([...document.querySelectorAll('figure svg[id]')].map(svg => {"
        "const box = svg.getBBox(), seen = svg.getBoundingClientRect();"
        "const count = svg.querySelectorAll('rect, path, circle').length;"
        "return [svg.id, [box.width, box.height, seen.width, seen.height, count]]"
        "}))"
    )
    assert set(boxes) == {"strip", "segments", "tradeoff", "pipeline", "worst", "samples"}
    for width, height, seen_width, seen_height, count in boxes.values():
        assert min(width, height, seen_width, seen_height) > 50
        assert count > 10


def test_switches_change_colours_and_legends(shown: Browser) -> None:
    seen = {}
    for value in ("segment", "db", "chip", "time"):
        choose(shown, value)
        seen[value] = [shown.run(FILL, index) for index in (0, 3, 19, 20)]
        legends = shown.run(
            "return [...document.querySelectorAll('.strip .legend')]"
            ".filter(each => each.offsetHeight).map(each => each.className)"
        )
        assert legends == [f"legend by-{value}"]
    assert seen["segment"][0] == seen["segment"][2] != seen["segment"][3]
    assert seen["chip"][0] != seen["chip"][1]
    assert seen["db"][0] != seen["db"][2]
    assert seen["time"][0] != seen["time"][2]


def test_pointing_and_keys_say_what_an_operator_is(shown: Browser) -> None:
    shown.run(
        "const bar = document.querySelectorAll('#strip .bars .op')[18], box = bar.getBoundingClientRect();"
        "document.getElementById('strip').dispatchEvent(new PointerEvent('pointermove',"
        "{clientX: box.left + box.width / 2, clientY: box.top + 1, bubbles: true}))"
    )
    readout = "return document.getElementById('strip-readout').textContent"
    assert shown.run(readout).startswith("block1_out/18 · CONV_2D · segment 1 · 352.5 KiB parameters")
    shown.run(
        "document.querySelector('#strip').closest('.scroll').dispatchEvent("
        "new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}))"
    )
    assert shown.run(readout).startswith("block1_out/19 · ADD")
    assert shown.run("return document.querySelectorAll('#strip .lit').length") == 1


def test_light_and_dark(shown: Browser) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        shown.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        colours[scheme] = shown.run(
            "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]"
        )
    assert colours["light"] == ["rgb(255, 255, 255)", "rgb(27, 33, 39)"]
    assert colours["dark"] == ["rgb(20, 23, 26)", "rgb(228, 231, 234)"]
    shown.run("document.getElementById('theme').click()")
    assert shown.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    shown.devtools("Emulation.setEmulatedMedia", features=[])


def test_texts_have_contrast(shown: Browser) -> None:
    for scheme in ("light", "dark"):
        shown.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        weak = shown.run(CONTRAST)
        assert weak == []
    shown.devtools("Emulation.setEmulatedMedia", features=[])


def test_a_figure_is_downloaded_as_svg_and_its_numbers_as_csv(shown: Browser, downloads: Path) -> None:
    choose(shown, "db")
    shown.run("document.querySelector('button[data-figure=strip]').click()")
    shown.run("document.querySelector('a[download=\"strip.csv\"]').click()")
    deadline = time.monotonic() + 20
    while len([each for each in downloads.iterdir() if each.suffix in (".svg", ".csv")]) < 2:
        assert time.monotonic() < deadline, "no downloads"
        time.sleep(0.1)
    tree = ET.fromstring((downloads / "strip.svg").read_text())
    bars = [each for each in tree.iter("{http://www.w3.org/2000/svg}rect") if each.get("class", "").startswith("op ")]
    assert len(bars) == 140
    assert all(re.fullmatch(r"rgb\(\d+, \d+, \d+\)", each.get("fill", "")) for each in bars)
    assert len({each.get("fill") for each in bars}) > 2
    assert (downloads / "strip.csv").read_text().count("\n") == 141


def test_it_prints_on_a4(shown: Browser) -> None:
    printed = shown.pdf()
    assert printed.startswith(b"%PDF-")
    boxes = {tuple(map(float, found.split())) for found in re.findall(rb"/MediaBox\s*\[([^\]]*)\]", printed)}
    assert len(boxes) == 1
    (_, _, width, height), *_ = boxes
    assert (round(width), round(height)) == (595, 842)
    pages = len(re.findall(rb"/Type\s*/Page\b", printed))
    assert 3 <= pages <= 9
