"""Check an HDF5 file before another library reads it: all of its data must be in the file itself.

1. HDF5 can return the bytes of other files: external storage, virtual datasets, external links. It can also load filter
   plug-ins. None of these is followed here; each is refused by name.
2. The declared size of datasets is limited: a file of a few bytes can declare terabytes of fill values.
3. Cycles of links are not followed: every object is visited once.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import BinaryIO

import h5py

from graphcut.errors import ModelError

MOST_BYTES = 2**32
"""The limit for all datasets: twice the largest ONNX file."""
MOST_OBJECTS = 100_000
MOST_ATTRIBUTES = 10_000
MOST_RANK = 32

_FILTERS = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})
_KINDS = "fiubSU"
AGAIN = "save it again with model.save()"


def check(file: Path | BinaryIO, subject: str) -> None:
    """Refuse a file that breaks a rule of the module docstring.

    Raises:
        ModelError: names the object.
        OSError, RuntimeError, KeyError, ValueError: h5py cannot read it.
    """
    with h5py.File(file, "r") as opened:
        waiting: list[tuple[str, h5py.Group]] = [("/", opened["/"])]
        seen: set[tuple[int, int]] = set()
        total = 0
        while waiting:
            path, group = waiting.pop()
            _check_attributes(group, path, subject)
            for name in group:
                where = f"{path}{name}"
                link = group.get(name, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    raise _error(subject, where, "is a link")
                member = group[name]
                info = h5py.h5o.get_info(member.id)
                if (info.fileno, info.addr) in seen:
                    continue
                seen.add((info.fileno, info.addr))
                if len(seen) > MOST_OBJECTS:
                    raise ModelError(f"{subject} contains more than {MOST_OBJECTS:,} objects", AGAIN)
                if isinstance(member, h5py.Group):
                    waiting.append((f"{where}/", member))
                elif isinstance(member, h5py.Dataset):
                    total += _check_dataset(member, where, subject)
                    _check_attributes(member, where, subject)
                if total > MOST_BYTES:
                    raise ModelError(
                        f"{subject} declares more than {MOST_BYTES >> 30} GiB of weights (at {where!r})",
                        "split a smaller model",
                    )


def _check_dataset(dataset: h5py.Dataset, where: str, subject: str) -> int:
    """The bytes that a dataset declares."""
    properties = dataset.id.get_create_plist()
    if properties.get_external_count():
        raise _error(subject, where, "is stored in another file")
    if dataset.is_virtual:
        raise _error(subject, where, "uses data of other files")
    filters = {properties.get_filter(number)[0] for number in range(properties.get_nfilters())}
    if filters - _FILTERS:
        raise _error(subject, where, f"needs filter {max(filters - _FILTERS)}, which is not part of HDF5")
    text = h5py.check_string_dtype(dataset.dtype) is not None
    if not text and dataset.dtype.kind not in _KINDS:
        raise _error(subject, where, f"is not numeric ({dataset.dtype})")
    if dataset.shape is not None and len(dataset.shape) > MOST_RANK:
        raise _error(subject, where, f"has {len(dataset.shape)} dimensions")
    return int(prod(dataset.shape or (0,)) * max(dataset.dtype.itemsize, 1))


def _check_attributes(member: h5py.Group | h5py.Dataset, where: str, subject: str) -> None:
    if len(member.attrs) > MOST_ATTRIBUTES:
        raise _error(subject, where, f"has {len(member.attrs)} attributes")
    for name in member.attrs:
        attribute = h5py.h5a.open(member.id, name.encode())
        size = prod(attribute.shape or (1,)) * attribute.dtype.itemsize
        if size > MOST_BYTES:
            raise _error(subject, where, f"has an attribute of {size} bytes")


def _error(subject: str, where: str, what: str) -> ModelError:
    shown = where if len(where) <= 80 else f"{where[:80]}..."
    return ModelError(f"{subject}: {shown!r} {what}, which graphcut does not support", AGAIN)
