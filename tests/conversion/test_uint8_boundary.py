"""uint8 at a model's inputs and outputs: the same numbers as int8, 128 higher, in every way of running."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from graphcut import cli, flow
from graphcut.conversion.uint8_boundary import typed
from graphcut.edgetpu import operator_check
from graphcut.errors import UsageError
from graphcut.prediction.sizes import predict
from graphcut.result import manifest
from graphcut.runtime.chain import Chain
from graphcut.runtime.job_folder import read_job
from graphcut.runtime.litert import LiteRtOpener
from graphcut.runtime.pipeline import Pipeline
from graphcut.tflite import edit, schema
from tests.support import nets
from tests.support.graph_nets import model, node, weights

WORDS = ["--calibration", "random", "--samples", "3", "-q", "--segments", "3", "--mean", "127.5", "--std", "127.5"]


@pytest.fixture(scope="module", params=["residual", "two_heads", "softmax"])
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One net in int8, and with uint8 at both ends."""
    folder = tmp_path_factory.mktemp(request.param)
    made = {"residual": nets.residual, "two_heads": nets.two_heads, "softmax": lambda: nets.residual(softmax=True)}
    nets.saved(made[request.param](), folder)
    types = ["--input-type", "uint8", "--output-type", "uint8"]
    for name, further in (("int8", []), ("uint8", [*types, "--independent"])):
        words = ["split", str(folder / "model.onnx"), "-o", str(folder / name), *WORDS, *further]
        assert cli.main(words) == 0
    return folder / "int8", folder / "uint8"


def test_every_way_of_running_gives_the_same_numbers_128_higher(folders: tuple[Path, Path]) -> None:
    int8, uint8 = folders
    opener = LiteRtOpener()
    ways = [{}, {"unsplit": True}, {"tail": 2}, {"tail": 3}]
    for way in ways:
        first, second = (read_job(folder, **way) for folder in folders)  # type: ignore[arg-type]
        with (
            Chain(first.parts, opener, inputs=first.inputs, outputs=first.outputs) as one,
            Chain(second.parts, opener, inputs=second.inputs, outputs=second.outputs) as other,
            Pipeline(second.parts, opener, inputs=second.inputs, outputs=second.outputs) as pipeline,
        ):
            assert {edge.dtype for edge in (*other.inputs, *other.outputs)} == {"uint8"}
            steps = np.random.default_rng(1).integers(-128, 128, one.inputs[0].shape, dtype=np.int8)
            pixels = (steps.astype(np.int16) + 128).astype(np.uint8)
            wanted = one.run(steps)
            assert len(wanted) == len(other.outputs)
            (piped,) = pipeline.run([pixels])
            for mine, theirs, third in zip(wanted, other.run(pixels), piped, strict=True):
                np.testing.assert_array_equal(theirs, (mine.astype(np.int16) + 128).astype(np.uint8))
                np.testing.assert_array_equal(theirs, third)
            for before, after in zip(one.inputs, other.inputs, strict=True):
                assert (after.scale, after.zero_point) == (before.scale, before.zero_point + 128)
    assert manifest.read(uint8).options["input_type"] == "uint8"
    assert manifest.read(int8).options["input_type"] == "int8"
    for folder, kind in ((int8, "int8"), (uint8, "uint8")):
        assert f"The model has {kind} inputs and {kind} outputs" in (folder / "note.txt").read_text()


def test_only_the_boundary_is_uint8(folders: tuple[Path, Path]) -> None:
    opened = manifest.read(folders[1])
    inputs = {each["int8"]["layer"] for each in opened.document["inputs"]}
    outputs = {each["layer"] for each in opened.document["outputs"]}
    for part in opened.segments:
        for tensor in (*part.inputs, *part.outputs):
            wanted = "uint8" if tensor.layer in inputs | outputs else "int8"
            assert tensor.dtype == wanted
    for tail in opened.tails:
        graph = edit.graph_of(schema.read(tail.tflite_path.read_bytes()))
        kinds = [schema.TYPE_NAMES[graph.tensors[int(index)].type] for index in graph.outputs]
        assert set(kinds) == {"UINT8"}


def test_the_proof_holds_and_is_the_one_of_int8(folders: tuple[Path, Path]) -> None:
    one, other = (manifest.read(folder).verification for folder in folders)
    assert other.exact
    assert other.float_exact
    assert (other.sqnr_db, other.top1_agreement, other.by_sample) == (one.sqnr_db, one.top1_agreement, one.by_sample)
    assert other.independent is not None
    assert cli.main(["verify", str(folders[1]), "-q"]) == 0
    assert cli.main(["verify", str(folders[1]), "--model", str(folders[1].parent / "model.onnx"), "-q"]) == 0


def test_sizes_are_predicted_to_the_byte(folders: tuple[Path, Path]) -> None:
    for folder in folders:
        for each in manifest.read(folder).document["segments"]:
            assert each["predicted_tflite_bytes"] == each["tflite_bytes"], (folder.name, each["index"])


def test_the_edge_tpu_takes_the_quantize_at_the_boundary(folders: tuple[Path, Path]) -> None:
    for one, other in zip(*(manifest.read(folder).segments for folder in folders), strict=True):
        before, after = operator_check.check(one.tflite_path), operator_check.check(other.tflite_path)
        added = len(after.ops) - len(before.ops)
        assert added == sum(each.op == "QUANTIZE" for each in after.ops) - sum(
            each.op == "QUANTIZE" for each in before.ops
        )
        assert len(after.on_cpu) == len(before.on_cpu)


def test_a_bundle_runs_and_so_does_the_command_line(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bundle", str(folders[1]), "-o", str(tmp_path / "bundle"), "-q"]) == 0
    described = json.loads((tmp_path / "bundle" / "meta.json").read_text())
    assert {each["int8"]["dtype"] for each in described["inputs"]} == {"uint8"}
    assert {each["dtype"] for each in described["outputs"]} == {"uint8"}
    assert cli.main(["diagnose", str(folders[1]), "-q"]) == 0
    capsys.readouterr()


def test_an_output_that_the_model_reads_itself_stays_int8(tmp_path: Path) -> None:
    nodes = [node("Conv", "x a", "map"), node("Relu", "map", "act"), node("Conv", "act b", "y")]
    constants = weights(a=(4, 3, 3, 3), b=(4, 4, 3, 3))
    path = nets.saved(model(nodes, {"x": (1, 3, 12, 12)}, ["act", "y"], constants), tmp_path)  # type: ignore[arg-type]
    graph = flow.prepare(str(path)).graph
    assert typed(graph, "int8", "uint8").uint8 == ("y",)
    assert typed(graph, "uint8", "int8").uint8 == ("x",)
    with pytest.raises(UsageError, match="every output is read inside"):
        typed(replace(graph, outputs=("act",)), "int8", "uint8")


def test_an_input_read_in_two_segments_costs_a_quantize_in_each() -> None:
    """A plan counts it: the file is no larger than predicted."""
    nodes = [node("Conv", "x a", "map"), node("Relu", "map", "act"), node("Concat", "act x", "y", axis=1)]
    proto = model(nodes, {"x": (1, 4, 8, 8)}, ["y"], weights(a=(4, 4, 1, 1)))
    from tests.support.graph_nets import normal

    graph = normal(proto).graph
    plain, both = predict(graph), predict(typed(graph, "uint8", "int8"))
    last = len(graph.nodes)
    assert both.file_bytes(last - 1, last) > plain.file_bytes(last - 1, last)
    assert both.file_bytes(0, last) > plain.file_bytes(0, last)
