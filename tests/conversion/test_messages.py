"""What a conversion that fails says: the operator and the layer, and a way out that can help."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from graphcut.conversion.job import ConversionJob, refused
from graphcut.errors import ConversionError
from graphcut.report.tables import plain, split_text
from tests.support.graph_nets import model, node, split_in_two, weights


def job(folder: Path) -> ConversionJob:
    path = folder / "convert1.onnx"
    onnx.save(model([node("Relu", "x", "a"), node("Einsum", "a", "scores")], {"x": (1, 4)}, ["scores"]), path)
    return ConversionJob(
        subject="segment 1 (x .. scores)",
        onnx_path=path,
        target=folder / "seg1.tflite",
        scratch=folder,
        inputs=(),
        outputs=(),
        logits={},
        samples=1,
        endings={},
        readers={},
        ranges={},
        per_channel=True,
    )


def test_an_operator_without_a_form_is_named_with_its_layer(tmp_path: Path) -> None:
    error = refused(job(tmp_path), "float", ValueError("Encountered unresolved custom op: ONNX_EINSUM.\nSee docs"))
    assert isinstance(error, ConversionError)
    assert error.message == "segment 1 (x .. scores): the converter does not support Einsum (layer scores)"
    assert error.way_out == "replace it with other operators, or end the model before it"


def test_any_other_reason_is_told_as_the_interpreter_says_it(tmp_path: Path) -> None:
    error = refused(job(tmp_path), "int8", RuntimeError("Node number 3 (DIV) failed to invoke."))
    assert "the int8 TFLite file does not run (Node number 3 (DIV) failed to invoke.)" in error.message


@pytest.mark.parametrize("notes", [("same",), ("same", "same")])
def test_a_note_that_several_segments_share_is_told_once(notes: tuple[str, ...], tmp_path: Path) -> None:
    nodes = [node("Conv", "x w1", "a"), node("Relu", "a", "b"), node("Conv", "b w2", "y")]
    proto = model(nodes, {"x": (1, 3, 12, 12)}, ["y"], weights(w1=(8, 3, 3, 3), w2=(8, 8, 3, 3)))
    result = split_in_two(proto, tmp_path)
    first, second = result.segments
    text = plain(split_text((replace(first, notes=notes), replace(second, notes=(*notes, "own"))), result.tails))
    assert text.endswith("\n\nsegments 1, 2: same\nsegment 2: own")
