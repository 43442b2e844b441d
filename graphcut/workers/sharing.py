"""Messages between two processes over a Unix socket; large arrays are passed in shared memory.

1. A message is one pickle (protocol 5). Buffers of ``SHARED_BYTES`` and more are left out of it: they are written once
   into an anonymous file, whose descriptor goes with the message, and are mapped on the other side.
2. The mapping is private to the receiver: it may write to its arrays without affecting the sender.
3. The file disappears when neither side maps it any more; with memfd_create(2) it is in no folder.
4. A :class:`Block` in a message is memory that both sides see from then on: what one writes, the other reads.
"""

from __future__ import annotations

import copyreg
import io
import mmap
import os
import pickle
import socket
import struct
import tempfile
import threading
from collections.abc import Sequence
from typing import Any

SHARED_BYTES = 2**16
_ALIGNMENT = 64
_HEADER = struct.Struct("!QQ")  # length of the pickle, number of shared buffers
_SIZE = struct.Struct("!Q")
_MOST_DESCRIPTORS = 8


class Block:
    """Memory that two processes share (statement 4), zero at first.

    Args:
        size: in bytes.
        descriptor: of an anonymous file of that size, which is closed; None for new memory.
    """

    def __init__(self, size: int, descriptor: int | None = None) -> None:
        self.size = size
        if descriptor is None:
            descriptor = _anonymous()
            try:
                os.ftruncate(descriptor, max(size, 1))
            except BaseException:
                os.close(descriptor)
                raise
        self._descriptor = descriptor
        try:
            self.memory = memoryview(mmap.mmap(descriptor, max(size, 1)))
        except BaseException:
            os.close(descriptor)
            raise

    def descriptor(self) -> int:
        """Of its file; the other side gets a copy of it."""
        return self._descriptor

    def __del__(self) -> None:
        """Give the descriptor back; the memory goes with the last view of it."""
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


class _Received(threading.local):
    descriptors: Sequence[int] = ()


_received = _Received()


def _block(place: int, size: int) -> Block:
    return Block(size, os.dup(_received.descriptors[place]))


def send(connection: socket.socket, message: Any) -> None:
    """Send one message.

    Raises:
        OSError: the other side has closed the connection.
    """
    shared: list[memoryview] = []

    def kept_inside(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < SHARED_BYTES:
            return True
        shared.append(raw)
        return False

    blocks: list[Block] = []

    def described(block: Block) -> tuple[Any, tuple[int, int]]:
        blocks.append(block)
        return _block, (len(blocks) - 1, block.size)

    written = io.BytesIO()
    pickler = pickle.Pickler(written, protocol=5, buffer_callback=kept_inside)
    pickler.dispatch_table = {**copyreg.dispatch_table, Block: described}
    pickler.dump(message)
    content = written.getvalue()
    header = _HEADER.pack(len(content), len(shared)) + b"".join(_SIZE.pack(each.nbytes) for each in shared)
    if not shared and not blocks:
        connection.sendall(header + content)
        return
    own = [_written(shared)] if shared else []
    try:
        sent = socket.send_fds(connection, [header], [*(block.descriptor() for block in blocks), *own])
    finally:
        for descriptor in own:
            os.close(descriptor)
    connection.sendall(header[sent:])
    connection.sendall(content)


def receive(connection: socket.socket) -> Any:
    """Receive one message.

    Raises:
        EOFError: the other side has closed the connection.
        OSError: the message is incomplete.
    """
    begun, descriptors, _, _ = socket.recv_fds(connection, _HEADER.size, _MOST_DESCRIPTORS)
    try:
        if not begun:
            raise EOFError
        header = begun + _exactly(connection, _HEADER.size - len(begun))
        length, count = _HEADER.unpack(header)
        sizes = [_SIZE.unpack(_exactly(connection, _SIZE.size))[0] for _ in range(count)]
        content = _exactly(connection, length)
        buffers = _mapped(descriptors[-1], sizes) if count else []
        _received.descriptors = descriptors
        return pickle.loads(content, buffers=buffers)
    finally:
        _received.descriptors = ()
        for descriptor in descriptors:
            os.close(descriptor)


def _written(buffers: Sequence[memoryview]) -> int:
    descriptor = _anonymous()
    try:
        place = 0
        for buffer in buffers:
            done = 0
            while done < buffer.nbytes:
                done += os.pwrite(descriptor, buffer[done:], place + done)
            place += aligned(buffer.nbytes)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _anonymous() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("graphcut", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _mapped(descriptor: int, sizes: Sequence[int]) -> list[memoryview]:
    places = [0]
    for size in sizes:
        places.append(places[-1] + aligned(size))
    last = places[-2] + sizes[-1]
    whole = memoryview(mmap.mmap(descriptor, last, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE))
    return [whole[place : place + size] for place, size in zip(places, sizes, strict=False)]


def aligned(size: int) -> int:
    """A number of bytes, rounded up so that what comes after it is aligned."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _exactly(connection: socket.socket, length: int) -> bytearray:
    content = bytearray(length)
    view, done = memoryview(content), 0
    while done < length:
        read = connection.recv_into(view[done:])
        if not read:
            raise EOFError
        done += read
    return content
