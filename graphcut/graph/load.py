"""Read, check and normalise an ONNX file.

Nothing in the file is ever executed, and nothing outside the file's own folder is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types
from onnx import ModelProto, TensorProto

from graphcut.cache_folder import EarlierResults
from graphcut.errors import ModelError, UsageError
from graphcut.graph.check_outcome import KnownVerdict
from graphcut.graph.model import Model
from graphcut.graph.model_range import WHOLE, ModelRange, end_at
from graphcut.graph.native import worker
from graphcut.graph.normalise import normalise
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.catalogue import PASSES
from graphcut.graph.passes.inputs import EVERY
from graphcut.graph.passes.inputs import input_layouts as layouts_of_inputs
from graphcut.graph.wellformed import array_of, refuse_malformed, shown, tensors
from graphcut.progress import Event, Report, silent
from graphcut.records import Shape, Source

LARGEST_BYTES = 2**31 - 1
"""The largest protobuf message (documented limit: 2 GiB)."""

NOTES = "graphcut-notes"
"""Metadata key of notes for the user in an exported file, as a JSON list."""

LFS_POINTER = b"version https://git-lfs"


def load(
    path: Path,
    *,
    input_shapes: Mapping[str, Shape] | None = None,
    input_layouts: Mapping[str, Literal["NCHW", "NHWC"]] | None = None,
    channels_last: bool = False,
    extra_passes: Sequence[Pass] = (),
    parts_as_outputs: bool = False,
    chosen: ModelRange = WHOLE,
    results: EarlierResults | None = None,
    report: Report = silent,
) -> Model:
    """Read an ONNX file and normalise it.

    Args:
        path: the file; external data is read from its folder, never from elsewhere.
        input_shapes: input name -> static shape in the file's own layout, for inputs with open dimensions or to change
            their size.
        input_layouts: input name ("" for all of rank 4) -> layout in the file, for inputs that the file does not
            transpose to NCHW.
        channels_last: the file comes from a source that writes images NHWC.
        extra_passes: rewrites to run after those of the catalogue.
        parts_as_outputs: make the parts of joined outputs separate outputs (:mod:`graphcut.graph.split_outputs`).
        chosen: where the model begins and ends (:mod:`graphcut.graph.model_range`).
        results: where it is kept which rewrites were right; None to check them every time.
        report: receives progress and notes.

    Returns:
        The model; ``source.sha256`` is that of the file's bytes, followed by those of its external data, if there are
        any.

    Raises:
        ModelError: the file cannot be read, or contains something that cannot be split; the line names it.
        UsageError: ``input_shapes`` or ``input_layouts`` name no input, or contradict the file; ``chosen`` is no range
            of the model.
    """
    report(Event(stage="load", done=0, total=3, detail=f"read {path.name}"))
    with worker():
        return _loaded(
            path,
            input_shapes or {},
            input_layouts or {},
            channels_last,
            extra_passes,
            report,
            parts_as_outputs,
            chosen,
            results,
        )


def _loaded(
    path: Path,
    input_shapes: Mapping[str, Shape],
    input_layouts: Mapping[str, Literal["NCHW", "NHWC"]],
    channels_last: bool,
    extra_passes: Sequence[Pass],
    report: Report,
    parts_as_outputs: bool,
    chosen: ModelRange,
    results: EarlierResults | None,
) -> Model:
    content = _content(path)
    proto = ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        if content.startswith(LFS_POINTER):
            raise ModelError(f"{path} is a Git LFS pointer, not the model itself", "run `git lfs pull`") from error
        raise ModelError(
            f"{path} is not an ONNX file, or it is truncated ({len(content)} bytes)", "export or download it again"
        ) from error
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.input or proto.graph.output):
        raise ModelError(f"{path} contains no ONNX graph", "pass an .onnx file")
    refuse_malformed(proto)
    digest = sha256(content)
    size = len(content)
    del content
    for data in _read_external(proto, path, size):
        digest.update(data)
    for tensor in tensors(proto, weights=False):
        array_of(tensor, f"the value {shown(tensor.name)} inside a node")
    report(Event(stage="load", done=1, total=3, detail="normalise"))
    source = Source(kind="onnx", name=path.stem, sha256=digest.hexdigest())
    passes = (layouts_of_inputs(input_layouts, channels_last=channels_last), *PASSES, *extra_passes)
    kept = _notes_of_export(proto)
    model = normalise(
        proto,
        source,
        input_shapes=input_shapes,
        report=report,
        passes=passes,
        parts_as_outputs=parts_as_outputs,
        chosen=end_at(proto, chosen),
        known=KnownVerdict(
            results,
            source.sha256,
            {name: list(shape) for name, shape in input_shapes.items()},
            dict(input_layouts),
            channels_last,
            [each.name for each in passes],
            [list(chosen.inputs), list(chosen.outputs)],
        ),
    )
    model = replace(model, notes=(*kept, *model.notes), range_inputs=chosen.inputs, range_outputs=chosen.outputs)
    _check_layouts(model, input_layouts)
    for note in model.notes:
        report(Event(stage="load", done=3, total=3, detail=note, note=True))
    return model


def _notes_of_export(proto: ModelProto) -> tuple[str, ...]:
    """Notes that graphcut's own export wrote into the file; empty for any other file."""
    for entry in proto.metadata_props:
        if entry.key == NOTES:
            try:
                notes = json.loads(entry.value)
            except ValueError:
                return ()
            if isinstance(notes, list) and all(isinstance(note, str) and note.isprintable() for note in notes):
                return tuple(notes)
    return ()


def _check_layouts(model: Model, said: Mapping[str, Literal["NCHW", "NHWC"]]) -> None:
    found = {each.name: each for each in model.inputs}
    for name, layout in said.items():
        if name != EVERY and name not in found:
            raise UsageError(f"the model has no input {name!r}", f"its inputs are {', '.join(found)}")
        for each in found.values() if name == EVERY else (found[name],):
            if each.source_layout not in (layout, "other"):
                raise UsageError(
                    f"input {each.name!r} is {each.source_layout} already: the model itself transposes it",
                    f"omit {layout}",
                )
            if name != EVERY and each.source_layout == "other":
                raise UsageError(
                    f"input {each.name!r} is not an image ({len(each.shape)} dimensions)", f"omit {layout}"
                )


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise ModelError(f"{path} is a folder", "pass the .onnx file in it")
        if size == 0:
            raise ModelError(f"{path} is empty", "export or download it again")
        if size > LARGEST_BYTES:
            raise ModelError(
                f"{path} has {size / 2**30:.1f} GiB; the format's limit is 2 GiB",
                "save it with external data, or split a smaller model",
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist", "check the path") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", "check the path and its permissions") from error


def _read_external(proto: ModelProto, path: Path, size: int) -> Iterator[bytes]:
    """Load external data into a model of ``size`` bytes; yields the bytes of every tensor, in the model's order."""
    total = size
    for tensor in tensors(proto):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        data = _external_bytes(tensor, path)
        total += len(data)
        if total > LARGEST_BYTES:
            raise ModelError(
                f"{path} and its external data exceed 2 GiB at tensor {tensor.name!r}", "split a smaller model"
            )
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = data
        yield data


def _external_bytes(tensor: TensorProto, path: Path) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    what, place = f"weight {shown(tensor.name)}", shown(location)
    folder = Path(os.path.realpath(path)).parent
    try:
        target = Path(os.path.realpath(folder / location))
        if not location or not target.is_relative_to(folder) or target == folder:
            raise ModelError(
                f"{what} refers to external data in {place}, outside the model's folder",
                "only files in the model's folder are read; save the model again with its data there",
            )
        if not target.is_file():
            raise ModelError(
                f"{what} is stored in {place}, which is missing from {folder}", "put that file next to the model"
            )
        with target.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            offset = int(entries.get("offset", "0"))
            length = int(entries.get("length", str(size - offset)))
            if not (0 <= offset <= size and 0 <= length <= size - offset):
                raise ModelError(
                    f"{what} needs {length} bytes at offset {offset} of {place}, which has {size}",
                    "download the file again",
                )
            if length > LARGEST_BYTES:
                raise ModelError(f"{what} is larger than 2 GiB", "split a smaller model")
            stream.seek(offset)
            data: bytes = stream.read(length)
            return data
    except (OSError, ValueError, RuntimeError) as error:
        reason = (
            error.strerror if isinstance(error, OSError) and error.strerror else "its offset or length is no number"
        )
        raise ModelError(
            f"{what} cannot be read from {place}: {reason}", "check the file and its permissions"
        ) from error
