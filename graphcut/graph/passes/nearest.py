"""Write nearest resizing that TFLite's operator would round differently as picks of rows and columns.

1. A Resize in nearest mode picks a row for each row of its output, and a column for each column; coordinates and
   rounding are attributes (ONNX operator Resize).
2. RESIZE_NEAREST_NEIGHBOR has three forms: floor(i s), floor((i + 1/2) s) and round(i s') with s = in / out and
   s' = (in - 1) / (out - 1). ONNX's default rounds halves down, which makes a difference where out / in is not a whole
   number. Where rows and columns are those of the form of the Resize's own coordinates, it stays; where they are those
   of the first form, it gets the coordinates of that.
3. Everything else becomes a Gather of rows and one of columns, which int8 has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import input_at, text
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.steps import Steps
from graphcut.records import Node, Shape

Picks = npt.NDArray[np.int64]
RANK = 4
_KNOWN = frozenset({"half_pixel", "asymmetric", "align_corners"})
"""Coordinates that the converter knows for this mode."""


def nearest(net: Net) -> int:
    """Resize in nearest mode becomes two Gathers where TFLite has no form for it."""
    matches = 0
    for node in net.walk("Resize"):
        before, after = net.shape(node.inputs[0]), net.shape(node.outputs[0])
        if before is None or after is None or len(before) != RANK or before[:2] != after[:2]:
            continue
        if text(node, "mode", "nearest") != "nearest" or net.dtype(node.inputs[0]) != "float32":
            continue
        found = [_picked(net, node, axis, before[axis], after[axis]) for axis in (2, 3)]
        picks = [each for each in found if each is not None]
        coordinates = text(node, "coordinate_transformation_mode", "half_pixel")
        if len(picks) < len(found) or (coordinates in _KNOWN and _is_tflite(coordinates, picks, before, after)):
            continue
        matches += 1
        if _is_tflite("asymmetric", picks, before, after):
            plain = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            net.replace([node], [replace(node, attributes={**node.attributes, **plain})])
            continue
        steps, source, shape = Steps(net, node, node.outputs[0]), node.inputs[0], list(before)
        for axis, each in zip((2, 3), picks, strict=True):
            shape[axis] = after[axis]
            numbers = net.add_weight(f"{node.name}_axis{axis}", each)
            source = steps.add("Gather", (source, numbers), tuple(shape), axis=axis)
        net.replace([node], steps.made())
    return matches


def _picked(net: Net, node: Node, axis: int, size: int, made: int) -> Picks | None:
    """The row, or column, of the input for each of the output; None where it cannot be told."""
    scales = net.constant(input_at(node, 2))
    along = node.attributes.get("axes", tuple(range(RANK)))
    assert isinstance(along, tuple)
    scale = np.float32(made / size)
    if scales is not None and scales.size:
        places = [place for place, each in enumerate(along) if each % RANK == axis]
        scale = np.float32(scales.reshape(-1)[places[0]]) if places else np.float32(1)
    numbers = np.arange(made, dtype=np.float32)
    coordinates = text(node, "coordinate_transformation_mode", "half_pixel")
    if coordinates == "half_pixel" or (coordinates == "pytorch_half_pixel" and made > 1):
        exact = (numbers + np.float32(0.5)) / scale - np.float32(0.5)
    elif coordinates == "asymmetric":
        exact = numbers / scale
    elif coordinates == "align_corners" and made > 1:
        exact = numbers * np.float32(size - 1) / np.float32(made - 1)
    elif coordinates in ("align_corners", "pytorch_half_pixel"):
        exact = np.zeros(1, np.float32)
    else:
        return None
    rounded = {
        "round_prefer_floor": lambda: np.ceil(exact - np.float32(0.5)),
        "round_prefer_ceil": lambda: np.floor(exact + np.float32(0.5)),
        "floor": lambda: np.floor(exact),
        "ceil": lambda: np.ceil(exact),
    }.get(text(node, "nearest_mode", "round_prefer_floor"))
    return None if rounded is None else np.clip(rounded(), 0, size - 1).astype(np.int64)


def _is_tflite(coordinates: str, picks: Sequence[Picks], before: Shape, after: Shape) -> bool:
    """Whether RESIZE_NEAREST_NEIGHBOR picks the same in the form of these coordinates (statement 2)."""
    for axis, each in zip((2, 3), picks, strict=True):
        size, made = before[axis], after[axis]
        numbers = np.arange(made, dtype=np.float64)
        if coordinates == "align_corners":
            exact = np.floor(numbers * (size - 1) / max(made - 1, 1) + 0.5)
        else:
            exact = np.floor((numbers + (0.5 if coordinates == "half_pixel" else 0.0)) * size / made)
        if not np.array_equal(np.clip(exact, 0, size - 1).astype(np.int64), each):
            return False
    return True


NEAREST = Pass(
    name="nearest",
    reason="RESIZE_NEAREST_NEIGHBOR rounds other halves than ONNX where sizes are no multiples; GATHER becomes int8",
    apply=nearest,
)
