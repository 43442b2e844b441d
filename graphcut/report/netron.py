"""Looking at a file in Netron; the only importer of the ``netron`` package."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from graphcut.errors import DependencyError, UsageError

HOST = "localhost"


@contextmanager
def serving(file: Path, *, port: int | None = None, browser: bool = True) -> Iterator[str]:
    """Serve a model file for as long as the block runs.

    Args:
        file: ``.onnx`` or ``.tflite``.
        port: the port to listen on; None for a free one.
        browser: open the address in the user's browser.

    Yields:
        The address, "http://localhost:8080".

    Raises:
        DependencyError: the ``netron`` package is not installed.
        UsageError: the port is taken.
    """
    server = _netron()
    if port is not None:
        _check_port(port)
    logging.getLogger("netron").setLevel(logging.WARNING)
    address = server.serve(str(file), None, address=(HOST, port), browse=browser)
    try:
        yield f"http://{address[0]}:{address[1]}"
    finally:
        server.stop(address)
        _wait_until_gone(server, address)


def wait() -> NoReturn:
    """Sleep until Ctrl-C."""
    while True:
        time.sleep(3600)


def _wait_until_gone(server: Any, address: tuple[str, int]) -> None:
    """Give Netron's thread the quarter of a second it needs to see that it was stopped."""
    deadline = time.monotonic() + 2
    while server.status(address) and time.monotonic() < deadline:
        time.sleep(0.01)


def _check_port(port: int) -> None:
    """Refuse a port that somebody listens on: Netron's server would fail in its own thread, or not at all."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise UsageError(f"port {port} cannot be used ({error})", "give another --port") from error


def _netron() -> Any:
    try:
        import netron
    except ModuleNotFoundError as error:
        raise DependencyError("netron is not installed", "pip install netron") from error
    return netron
