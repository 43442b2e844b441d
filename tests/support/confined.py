"""Functions for a confined worker: each tries one thing and says what came of it."""

from __future__ import annotations

import socket as sockets
import tempfile
from pathlib import Path


def read(path: str) -> str:
    """Read a file."""
    try:
        return Path(path).read_text()
    except OSError as error:
        return type(error).__name__


def write(path: str) -> str:
    """Write a file."""
    try:
        Path(path).write_text("x")
    except OSError as error:
        return type(error).__name__
    return "written"


def temporary(_: str) -> str:
    """Where temporary files lie."""
    with tempfile.NamedTemporaryFile() as file:
        return file.name


def socket(family: str) -> str:
    """Make a socket."""
    try:
        sockets.socket(getattr(sockets, family), sockets.SOCK_DGRAM).close()
    except OSError as error:
        return type(error).__name__
    return "made"


def compute(_: str) -> str:
    """Import packages with native code, and use them."""
    import h5py
    import numpy as np

    assert h5py.version.hdf5_version
    return str(np.ones((2, 3)).sum())
