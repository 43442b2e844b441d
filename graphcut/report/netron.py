"""Show a file in Netron; the only importer of the ``netron`` package.

1. Netron's own page asks for consent to cookies, contacts ipinfo.io and Google Analytics, and half a year after its
   release shows nothing but "Please update". Its files are served here with those parts disabled: the start page has
   today's date and is no packaged release, the consent cookie is already set, and a content security policy allows
   requests to this server only.
2. The server has Netron's files and the one model file, no folder. It answers only requests whose ``Host`` is its own,
   so that a foreign page cannot read the model through a name that points to this machine (DNS rebinding).
3. Operators of the unsplit model and of tails are coloured by segment: Netron draws them in the order of the file, and
   a script of ours gives each its segment's class. Where it draws another number of nodes, they keep Netron's colours.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import re
import shutil
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO, NoReturn
from urllib.parse import quote, unquote, urlsplit

from graphcut.errors import DependencyError, UsageError, setting
from graphcut.report.html.svg import shown

HOST = "localhost"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src "
    "'self'; font-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load: from this server only. Netron's style sheets stand in its page, hence 'unsafe-inline'."""
COLOURS = ("#3568a8", "#b57d12", "#258270", "#b34d72", "#4a8fbf", "#76549e", "#85822a", "#5b656e")
"""Of segments, in turn; white text is legible on each."""

_STYLE, _SCRIPT = "segments.css", "segments.js"
_LEGEND = """\
#graphcut-segments { position: fixed; top: 8px; right: 8px; margin: 0; padding: 4px; list-style: none; }
#graphcut-segments:not([hidden]) { display: flex; flex-wrap: wrap; justify-content: end; gap: 2px; max-width: 60vw; }
#graphcut-segments::before { content: "segment"; font-size: 11px; padding: 2px 7px; }
#graphcut-segments li { color: #fff; font-size: 11px; padding: 2px 7px; border-radius: 4px; }"""
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
}
_FILE = re.compile(r"[A-Za-z0-9_-]+(\.[a-z]+)")
_HEAD = re.compile(r"<head[^>]*>", re.IGNORECASE)
_LISTENS_EVERYWHERE = frozenset({"0.0.0.0", "::", ""})


@contextmanager
def serving(
    file: Path, *, host: str = HOST, port: int | None = None, browser: bool = True, segments: Sequence[int] = ()
) -> Iterator[str]:
    """Serve a model file for as long as the block runs.

    Args:
        file: ``.onnx`` or ``.tflite``.
        host: the address to listen on; everyone who can reach it can read the file.
        port: the port to listen on; None for a free one.
        browser: open the address in the user's browser.
        segments: the segment of each operator of the file, from 1; they get its colour. Empty for Netron's own colours.

    Yields:
        The address, "http://localhost:8080".

    Raises:
        DependencyError: the ``netron`` package is not installed, or has no start page that is understood.
        UsageError: the file cannot be read, or host or port cannot be used.
    """
    site = _Site(file, _netron(), segments)
    try:
        server = _Server((host, port or 0), partial(_Handler, site=site, host=host))
    except (OSError, OverflowError) as error:
        where = f"host {host} cannot be used" if port is None else f"port {port} cannot be used"
        way_out = f"choose another {setting('host' if port is None else 'port')}"
        raise UsageError(f"{where} ({error})", way_out) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    address = f"http://{_reached_at(host)}:{server.server_port}"
    try:
        if browser:
            webbrowser.open(address)
        yield address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def wait() -> NoReturn:
    """Sleep until Ctrl-C."""
    while True:
        time.sleep(3600)


class _Site:
    """What is served: the patched start page, Netron's files, the model (statements 1 and 2)."""

    def __init__(self, file: Path, folder: Path, segments: Sequence[int]) -> None:
        self.file, self._folder, self._segments = file, folder, segments
        if not file.is_file():
            raise UsageError(f"{file} is missing", "pass a model file")
        self.page = self._page()

    def text(self, name: str) -> tuple[bytes, str] | None:
        """One of Netron's files, or ours, with its type; None where there is none."""
        if name in ("", "index.html"):
            return self.page, "text/html; charset=utf-8"
        if name == _STYLE:
            return _style(), _TYPES[".css"]
        if name == _SCRIPT and self._segments:
            return _script(self._segments), _TYPES[".js"]
        found = _FILE.fullmatch(name)
        kind = _TYPES.get(found[1]) if found else None
        path = self._folder / name
        return (path.read_bytes(), kind) if kind and path.is_file() else None

    def _page(self) -> bytes:
        start = self._folder / "index.html"
        text = start.read_text(encoding="utf-8") if start.is_file() else ""
        head = _HEAD.search(text)
        if head is None:
            raise DependencyError("the installed netron has no start page", "pip install --force-reinstall netron")
        name = self.file.name
        # The first of several equal meta elements counts.
        ours = (
            '<meta name="version" content="0.0.0"><meta name="date" content=""><meta name="type" content="Python">'
            f'<meta name="file" content="/data/{escape(quote(name))}"><meta name="identifier" content="{escape(name)}">'
            f'<link rel="stylesheet" type="text/css" href="{_STYLE}">'
        )
        text = text[: head.end()] + ours + text[head.end() :]
        if self._segments:
            text = text.replace("</body>", f'{self._legend()}<script src="{_SCRIPT}"></script></body>')
        return text.encode()

    def _legend(self) -> str:
        count = max(self._segments, default=0)
        first = min(self._segments, default=1)
        items = "".join(
            f'<li class="graphcut-{(number - 1) % len(COLOURS)}">{number}</li>' for number in range(first, count + 1)
        )
        return f'<ol id="graphcut-segments" hidden aria-label="segments">{items}</ol>' if items else ""


def _style() -> bytes:
    """Colours of operators and of the legend (statement 3)."""
    lines = [_LEGEND]
    for number, colour in enumerate(COLOURS):
        lines.append(f"li.graphcut-{number} {{ background: {colour}; }}")
        lines.append(f".graphcut-{number} .node-item-type path {{ fill: {colour}; }}")
        lines.append(f".graphcut-{number} .node-item-type text {{ fill: #fff; }}")
    return "\n".join(lines).encode()


def _script(segments: Sequence[int]) -> bytes:
    """Give every operator the class of its segment as soon as Netron has drawn it (statement 3)."""
    wanted = ",".join(str((segment - 1) % len(COLOURS)) for segment in segments)
    return f"""const wanted = [{wanted}];
const number = (node) => Number(node.id.slice("node-id-".length));
const colour = () => {{
  const nodes = [...document.querySelectorAll(".node[id^='node-id-']")];
  const drawn = nodes.filter((node) => node.querySelector(".node-item-type"));
  if (drawn.length !== wanted.length) return;
  drawn.sort((one, other) => number(one) - number(other));
  drawn.forEach((node, index) => node.classList.add(`graphcut-${{wanted[index]}}`));
  document.getElementById("graphcut-segments").hidden = false;
}};
new MutationObserver(colour).observe(document.getElementById("target"), {{ childList: true, subtree: true }});
""".encode()


class _Server(ThreadingHTTPServer):
    """A server with one thread per request; a browser that disconnects is not an error."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Report errors, except that the browser has disconnected."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # a socket and an address


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    def __init__(self, *arguments: object, site: _Site, host: str) -> None:
        self._site, self._host = site, host
        super().__init__(*arguments)  # type: ignore[arg-type]  # a request, an address, a server

    def do_HEAD(self) -> None:  # the name is that of http.server
        """Answer without a body."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer."""
        if not is_own(self.headers.get("Host", ""), self._host):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "not the host that is served here")
            return
        name = unquote(urlsplit(self.path).path).removeprefix("/")
        if name == f"data/{self._site.file.name}":
            with suppress(OSError), self._site.file.open("rb") as stream:
                self._head(self._site.file.stat().st_size, "application/octet-stream")
                self._body(stream)
            return
        found = self._site.text(name)
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        content, kind = found
        self._head(len(content), kind, consented=name in ("", "index.html"))
        if self.command != "HEAD":
            self.wfile.write(content)

    def end_headers(self) -> None:
        """End the headers of every answer, errors too, with the policy."""
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Do not log requests."""

    def _head(self, size: int, kind: str, *, consented: bool = False) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        if consented:
            self.send_header("Set-Cookie", "consent=0; Path=/; SameSite=Strict")
        self.end_headers()

    def _body(self, stream: BinaryIO) -> None:
        if self.command != "HEAD":
            shutil.copyfileobj(stream, self.wfile)


def is_own(given: str, host: str) -> bool:
    """Whether a ``Host`` header names this server (statement 2).

    Args:
        given: "localhost:8080".
        host: what the server listens on; "0.0.0.0" is reached at any of the machine's addresses.
    """
    name = re.sub(r":\d+$", "", given).strip("[]").rstrip(".").lower()
    if name in {host.lower(), "localhost", "127.0.0.1", "::1"}:
        return True
    if host not in _LISTENS_EVERYWHERE:
        return False
    own = socket.gethostname().lower()
    if name in {own, own.partition(".")[0], f"{own.partition('.')[0]}.local"}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _reached_at(host: str) -> str:
    name = shown(socket.gethostname()) if host in _LISTENS_EVERYWHERE else host
    return f"[{name}]" if ":" in name else name


def _netron() -> Path:
    """The folder of the package's files."""
    found = importlib.util.find_spec("netron")
    if found is None or found.origin is None:
        raise DependencyError("netron is not installed", "pip install netron")
    return Path(found.origin).parent
