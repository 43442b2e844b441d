"""From a model to a proved folder and back, on small nets made here."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphcut import flow
from graphcut.conversion import build
from graphcut.errors import GraphcutError, InfeasibleError, ModelError, VerificationError
from graphcut.graph.model import Model
from graphcut.measurement import int8_chain
from graphcut.planning import plan_model, plan_options
from graphcut.planning.plan_options import PlanOptions
from graphcut.prediction.sizes import predict
from graphcut.records import Samples
from graphcut.result import reopen
from graphcut.samples import load_samples
from graphcut.tflite import edit, schema
from graphcut.verification import proof as proving
from tests.support import nets
from tests.support.warm import workers

BALANCED3 = plan_options.SplitOptions(plan=PlanOptions(strategy="balanced", segments=3))


def loaded(proto: onnx.ModelProto, folder: Path) -> tuple[Model, Samples]:
    model = flow.prepare(str(nets.saved(proto, folder)))
    return model, load_samples("random", model.inputs, None)


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def split_once(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("split")
    model, samples = loaded(nets.residual(softmax=True), folder)
    return model, samples, flow.split(model, samples, BALANCED3, folder / "out", pool=workers())


def test_chain_unsplit_and_tails_are_proved_equal(split_once):
    _, samples, result = split_once
    proved = result.verification
    assert proved.passed
    assert proved.exact
    assert proved.float_exact
    assert proved.samples == len(samples) == 8
    assert proved.synthetic_calibration
    assert set(proved.sqnr_db) == {*result.plan.cuts, "logits"}
    assert min(proved.sqnr_db.values()) > 20
    assert [tail.first for tail in result.tails] == [1, 2, 3]


def test_sizes_are_predicted_to_the_byte(split_once):
    model, _, result = split_once
    sizes = predict(model.graph)
    for part in result.segments:
        predicted = sizes.file_bytes(part.segment.start, part.segment.stop)
        assert part.segment.tflite_bytes == part.tflite_path.stat().st_size
        assert predicted == part.segment.tflite_bytes


def test_both_sides_of_every_seam_have_one_scale(split_once):
    _, _, result = split_once
    for maker, reader in zip(result.segments[:-1], result.segments[1:], strict=True):
        assert maker.outputs == reader.inputs
    tensors = {}
    for index in (1, 2, 3):
        model = schema.read((result.folder / f"full_split/tflite/seg{index}_int8.tflite").read_bytes())
        graph = edit.graph_of(model)
        for position in (*graph.inputs, *graph.outputs):
            name = schema.tensor_name(graph.tensors[int(position)])
            scale = edit.scale_of(model, int(position))
            assert tensors.setdefault(name, scale) == scale


def test_every_operator_is_int8(split_once):
    _, _, result = split_once
    model = schema.read((result.folder / "unsplit/unsplit_int8.tflite").read_bytes())
    kinds = {schema.TYPE_NAMES[tensor.type] for tensor in edit.graph_of(model).tensors}
    assert kinds == {"INT8", "INT32"}
    names = [schema.op_name(model, operator) for operator in edit.graph_of(model).operators]
    assert names.count("ADD") == 4
    assert "TRANSPOSE" not in names


def test_onnx_segments_are_valid_files_of_their_own(split_once):
    _, _, result = split_once
    for index in (1, 2, 3):
        segment = onnx.load(result.folder / f"segments/seg{index}.onnx")
        onnx.checker.check_model(segment, full_check=True)
        assert len(segment.graph.input) == len(segment.graph.output) == 1


def test_same_input_gives_the_same_bytes(split_once, tmp_path: Path):
    _, _, result = split_once
    model, samples = loaded(nets.residual(softmax=True), tmp_path)
    again = flow.split(model, samples, BALANCED3, tmp_path / "out", pool=workers())
    assert hashes(again.folder) == hashes(result.folder)


def test_a_folder_is_verified_again_with_the_same_verdict(split_once):
    _, _, result = split_once
    assert reopen.verify(result.folder) == result.verification


def test_verify_on_other_samples(split_once):
    _, samples, result = split_once
    arrays = {name: array[:3] * np.float32(0.7) for name, array in samples.arrays.items()}
    other = replace(samples, arrays=arrays, names=samples.names[:3])
    proved = reopen.verify(result.folder, other)
    assert proved.exact
    assert proved.samples == 3


def test_a_changed_file_is_found_out(split_once):
    _, _, result = split_once
    path = result.folder / "full_split/tflite/seg2_int8.tflite"
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:-100] + bytes(100))
        with pytest.raises(VerificationError, match=r"seg2_int8\.tflite"):
            reopen.verify(result.folder)
    finally:
        path.write_bytes(whole)


def test_a_segment_with_one_other_weight_is_not_exact(split_once, tmp_path: Path):
    _, samples, result = split_once
    opened = flow.manifest.read(result.folder)
    victim = opened.segments[1]
    changed = schema.read(victim.tflite_path.read_bytes())
    graph = edit.graph_of(changed)
    tensor = graph.tensors[int(graph.operators[0].inputs[1])]
    weights = schema.constant(changed, tensor).copy()
    weights.reshape(-1)[0] = -weights.reshape(-1)[0] + 31
    schema.set_constant(changed, tensor, weights)
    path = tmp_path / "seg2.tflite"
    path.write_bytes(schema.write(changed))
    segments = (opened.segments[0], replace(victim, tflite_path=path), opened.segments[2])
    whole = reopen.float_whole(segments, opened.tails[0].outputs, samples)
    proved = proving.verify(int8_chain.run_chain(segments, samples), opened.tails, samples, whole)
    assert not proved.exact
    assert not proved.passed
    assert any("unsplit model differs from the chain" in finding for finding in proved.findings)


def test_run_gives_the_same_through_chain_and_every_tail(split_once):
    _, samples, result = split_once
    chain = reopen.run(result.folder, samples)
    for k in (1, 2, 3):
        for ours, theirs in zip(chain, reopen.run(result.folder, samples, tail=k), strict=True):
            assert np.array_equal(ours["probabilities"], theirs["probabilities"])
    with pytest.raises(GraphcutError, match="no tail that begins at segment 4"):
        reopen.run(result.folder, samples, tail=4)


def test_two_outputs_of_different_rank(tmp_path: Path):
    model, samples = loaded(nets.two_heads(), tmp_path)
    options = plan_options.SplitOptions(plan=PlanOptions(strategy="given", cuts=("c2_out",)))
    result = flow.split(model, samples, options, tmp_path / "out", pool=workers())
    assert result.verification.passed
    assert set(result.verification.sqnr_db) == {"c2_out", "map", "score"}
    assert result.verification.top1_agreement is None
    assert result.segments[1].outputs[0].shape == (1, 8, 8, 5), "NHWC in the TFLite files"


def test_per_tensor_weights_are_smaller_and_worse(tmp_path: Path, split_once):
    _, _, channelwise = split_once
    model, samples = loaded(nets.residual(softmax=True), tmp_path)
    result = flow.split(model, samples, replace(BALANCED3, per_channel=False), tmp_path / "out", pool=workers())
    assert result.verification.exact
    assert sum(s.tflite_bytes for s in result.plan.segments) < sum(s.tflite_bytes for s in channelwise.plan.segments)
    assert result.verification.sqnr_db["logits"] < channelwise.verification.sqnr_db["logits"]


def test_a_plan_whose_files_break_the_budget_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model, samples = loaded(nets.residual(), tmp_path)
    honest = flow.make_plan(model, PlanOptions(strategy="balanced", segments=2))
    largest = max(segment.tflite_bytes for segment in honest.segments)

    def optimistic(graph, *, per_channel: bool = True):
        sizes = predict(graph, per_channel=per_channel)
        return replace(sizes, prefix_bytes=tuple(int(0.8 * size) for size in sizes.prefix_bytes))

    monkeypatch.setattr(plan_model, "predict", optimistic)
    notes: list[str] = []
    options = plan_options.SplitOptions(plan=PlanOptions(budget_bytes=int(0.9 * largest)))
    result = flow.split(
        model,
        samples,
        options,
        tmp_path / "out",
        lambda event: notes.append(event.detail) if event.note else None,
        workers(),
    )
    assert max(segment.tflite_bytes for segment in result.plan.segments) <= 0.9 * largest
    assert any("planning again" in note for note in notes)


def test_a_budget_below_the_largest_block_leaves_nothing(tmp_path: Path):
    model, samples = loaded(nets.residual(), tmp_path)
    options = plan_options.SplitOptions(plan=PlanOptions(budget_bytes=3000))
    with pytest.raises(InfeasibleError, match="block"):
        flow.split(model, samples, options, tmp_path / "out", pool=workers())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx"]


@pytest.mark.parametrize(
    ("steps", "zero_point", "db", "words"),
    [
        (np.full((4, 10), 7, np.int8), 0, 20.0, "the same int8 number 7 everywhere"),
        (np.repeat(np.array([[127, 127, 127, 5]], np.int8), 4, 0), 0, 20.0, "75% of its int8 values are saturated"),
        (np.arange(40, dtype=np.int8).reshape(4, 10), 0, 1.0, "is noise"),
        (np.arange(40, dtype=np.int8).reshape(4, 10), 0, float("nan"), "is noise"),
    ],
)
def test_meaningless_outputs_are_called_so(steps: np.ndarray, zero_point: int, db: float, words: str):
    wanted = np.arange(steps.size, dtype=np.float32).reshape(steps.shape)
    (finding,) = proving._meaningless("logits", steps, 1.0, zero_point, wanted, db)
    assert words in finding


def test_a_relu_that_is_often_zero_is_not_saturated():
    steps = np.full((4, 10), -128, np.int8)
    steps[:, 0] = 5
    assert proving._meaningless("block", steps, 1.0, -128, np.eye(4, 10, dtype=np.float32), None) == []


def test_a_sigmoid_that_is_often_one_in_float_is_not_saturated_in_int8():
    wanted = np.ones((4, 10), np.float32)
    wanted[:, 0] = 0.25
    steps = np.clip(np.rint(wanted * 256) - 128, -128, 127).astype(np.int8)
    assert proving._meaningless("boxes", steps, 1 / 256, -128, wanted, 30.0) == []
    (finding,) = proving._meaningless("boxes", steps, 1 / 256, -128, wanted / 2, 30.0)
    assert "saturated at 127" in finding


def test_the_manifest_says_what_was_proved(split_once):
    _, _, result = split_once
    meta = json.loads((result.folder / "meta.json").read_text())
    assert meta["verification"]["passed"] is True
    assert meta["verification"]["exact"] is True
    assert meta["verification"]["samples"] == 8
    assert meta["verification"]["synthetic_calibration"] is True
    assert meta["verification"]["sqnr_db"].keys() == result.verification.sqnr_db.keys()


def test_layer_norm_keeps_its_division_in_float_and_says_so(tmp_path: Path):
    model, samples = loaded(nets.layer_norm(), tmp_path)
    options = plan_options.SplitOptions(plan=PlanOptions(strategy="given", cuts=("block1_out",)))
    result = flow.split(model, samples, options, tmp_path / "out", pool=workers())
    assert result.verification.passed
    assert result.verification.sqnr_db["logits"] > 24
    assert any("DIV" in note and "on the host" in note for part in result.segments for note in part.notes)


def test_a_float_model_that_computes_no_numbers_is_said_to(tmp_path: Path) -> None:
    """Not the converter is at fault, which was blamed after trying four ways."""
    b = nets.Builder()
    b.node("Sqrt", [b.conv("image", "stem", (3, 8))], "root")
    proto = b.model({"image": (1, 3, 8, 8)}, {"root": (1, 8, 8, 8)})
    model = flow.prepare(str(nets.saved(proto, tmp_path)))
    options = plan_options.SplitOptions(plan=PlanOptions(budget_bytes=10**6))
    with pytest.raises(ModelError, match=r"NaN or infinity at root \(sample random 0\)"):
        flow.split(model, load_samples("random", model.inputs, None), options, tmp_path / "out", pool=workers())
    assert not (tmp_path / "out").exists()


def test_samples_that_say_little_are_told(tmp_path: Path) -> None:
    model = flow.prepare(str(nets.saved(nets.residual(), tmp_path)))
    options = plan_options.SplitOptions(plan=PlanOptions(budget_bytes=10**6), force=True)
    random = load_samples("random", model.inputs, None, limit=3)
    (values,) = random.arrays.values()
    for array, told in (
        (np.zeros_like(values), "all values of the samples are equal"),
        (np.repeat(values[:1], 3, axis=0), "all samples are the same"),
        (values, ""),
    ):
        samples = replace(random, arrays={"image": array})
        result = flow.split(model, samples, options, tmp_path / "out", pool=workers())
        said = [each.split(":")[0] for each in result.verification.findings]
        assert (told in said) == bool(told)
        assert not any("samples" in each for each in said if each != told)
        assert reopen.verify(tmp_path / "out").findings == result.verification.findings


def test_an_interrupt_while_a_thread_starts_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts a thread learns of it when its start returns: one that was interrupted there went on writing."""
    model = flow.prepare(str(nets.saved(nets.residual(), tmp_path)))
    samples = load_samples("random", model.inputs, None, limit=2)
    stages: list[str] = []
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if stages[-1:] == ["convert"]:
            stages.append("interrupted")
            raise KeyboardInterrupt

    def scribble(*given: Any) -> bool:
        for number in range(2000):
            (given[-1] / str(number)).touch()
        return True

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    monkeypatch.setattr(build, "prove_chain", scribble)
    options = plan_options.SplitOptions(plan=PlanOptions(budget_bytes=10**6))
    with pytest.raises(KeyboardInterrupt):
        flow.split(model, samples, options, tmp_path / "out", lambda event: stages.append(event.stage))
    assert "interrupted" in stages
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx"]
