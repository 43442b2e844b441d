"""Channels brought to like ranges: the float function stays, ranges become alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from graphcut import flow
from graphcut.errors import UsageError
from graphcut.graph import equalise as equalising
from graphcut.graph.equalise import equalise
from graphcut.graph.model import Model
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.catalogue import PASSES
from graphcut.planning.plan_options import PlanOptions, SplitOptions
from graphcut.records import Samples
from graphcut.result import manifest
from graphcut.samples import make_samples
from graphcut.settings import Method
from tests.support import nets
from tests.support.graph_nets import ints, model, node, normal, run
from tests.support.warm import workers


def samples_of(prepared: Model, count: int = 4, seed: int = 0) -> Samples:
    chance = np.random.default_rng(seed)
    arrays = {
        each.name: chance.standard_normal((count, *each.shape[1:])).astype(np.float32) for each in prepared.inputs
    }
    return make_samples(arrays, [f"{n}" for n in range(count)], "made", synthetic=True)


def values_of(prepared: Model, tensor: str, samples: Samples) -> npt.NDArray[np.float32]:
    proto = onnx.ModelProto()
    proto.CopyFrom(prepared.proto)
    proto.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    return np.concatenate([run(proto, {"x": samples.arrays["x"][n : n + 1]})[-1] for n in range(len(samples))])


def ranges_of(prepared: Model, tensor: str, samples: Samples) -> npt.NDArray[np.float32]:
    held = values_of(prepared, tensor, samples)
    return held.max(axis=(0, 2, 3)) - held.min(axis=(0, 2, 3))


def uneven(channels: int, *dims: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Weights (channels, ...) whose output channels differ by orders of magnitude."""
    chance = np.random.default_rng(seed)
    size = np.exp(chance.standard_normal((channels, *(1,) * len(dims))) * 1.5)
    return (chance.standard_normal((channels, *dims)) * size / np.sqrt(np.prod(dims))).astype(np.float32)


def assert_equalised(proto: onnx.ModelProto, tensor: str, *, passes: Sequence[Pass] = PASSES) -> Model:
    """That the model computes the same with new weights, and that the channels of ``tensor`` are more alike."""
    before = normal(proto, passes=passes)
    samples = samples_of(before)
    after = equalise(before, samples)
    assert after is not None
    fresh = samples_of(before, seed=1).arrays
    feed = {name: array[:1] for name, array in fresh.items()}
    for wanted, found in zip(run(before.proto, feed), run(after.proto, feed), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert after.graph is before.graph
    report = after.passes[-1]
    assert report.name == "equalise-channels"
    assert report.matches > 0
    assert report.relative_error is not None
    assert report.relative_error < 1e-5
    spread = [np.ptp(np.log(ranges_of(each, tensor, samples))) for each in (before, after)]
    assert spread[1] < 0.75 * spread[0]
    return after


BETWEEN = {
    "Relu": [node("Relu", "a", "b")],
    "LeakyRelu": [node("LeakyRelu", "a", "b", alpha=0.1)],
    "PRelu": [node("PRelu", "a slope", "b")],
    "nothing": [node("Identity", "a", "b")],
    "MaxPool": [node("MaxPool", "a", "b", kernel_shape=[2, 2], strides=[2, 2])],
    "AveragePool": [node("AveragePool", "a", "b", kernel_shape=[2, 2], strides=[2, 2])],
    "Pad": [node("Relu", "a", "r"), node("Pad", "r pads", "b")],
    "Mul": [node("Relu", "a", "r"), node("Mul", "r factor", "b")],
    "depthwise": [node("Relu", "a", "r"), node("Conv", "r deep deep_bias", "b", group=8, pads=[1, 1, 1, 1])],
    "Resize": [node("Resize", "a - sizes", "b", mode="nearest")],
}


@pytest.mark.parametrize("between", BETWEEN)
def test_channels_become_alike_through_what_only_hands_them_on(between: str) -> None:
    proto = model(
        [
            node("Conv", "x first first_bias", "a", pads=[1, 1, 1, 1]),
            *BETWEEN[between],
            node("Conv", "b second second_bias", "y"),
        ],
        {"x": (1, 3, 8, 8)},
        ["y"],
        {
            "first": uneven(8, 3, 3, 3),
            "first_bias": uneven(8, 1)[:, 0],
            "second": uneven(4, 8, 1, 1, seed=1),
            "second_bias": np.ones(4, np.float32),
            "slope": np.full((8, 1, 1), 0.2, np.float32),
            "pads": ints(0, 0, 1, 1, 0, 0, 1, 1),
            "factor": np.linspace(0.5, 2, 8).reshape(8, 1, 1).astype(np.float32),
            "deep": uneven(8, 1, 3, 3, seed=2),
            "deep_bias": np.zeros(8, np.float32),
            "sizes": np.array([1, 1, 2, 2], np.float32),
        },
    )
    assert_equalised(proto, "a")


def test_what_is_added_up_has_one_scale() -> None:
    """A stem and two linear bottlenecks: all three sums and what is added share the scale of each channel."""
    constants = {"stem": uneven(8, 3, 3, 3), "bias": uneven(8, 1, seed=5)[:, 0] * 3}
    nodes = [node("Conv", "x stem bias", "s0", pads=[1, 1, 1, 1])]
    for number in (1, 2):
        constants[f"wide{number}"] = uneven(16, 8, 1, 1, seed=number)
        constants[f"narrow{number}"] = uneven(8, 16, 1, 1, seed=0)
        constants |= {f"wb{number}": np.ones(16, np.float32), f"nb{number}": np.ones(8, np.float32)}
        nodes += [
            node("Conv", f"s{number - 1} wide{number} wb{number}", f"w{number}"),
            node("Clip", f"w{number} low high", f"c{number}"),
            node("Conv", f"c{number} narrow{number} nb{number}", f"n{number}"),
            node("Add", f"s{number - 1} n{number}", f"s{number}"),
        ]
    constants |= {"last": uneven(4, 8, 1, 1, seed=9), "low": np.array(0, np.float32), "high": np.array(6, np.float32)}
    constants["last_bias"] = np.zeros(4, np.float32)
    proto = model([*nodes, node("Conv", "s2 last last_bias", "y")], {"x": (1, 3, 8, 8)}, ["y"], constants)
    after = assert_equalised(proto, "s1")
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in after.proto.graph.initializer}
    # ReLU6 is bounded: its channels keep their scale, so the weights that make and read them keep one side.
    ratio = weights["wide1"] / constants["wide1"]
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:1], ratio.shape), rtol=1e-5)
    samples = samples_of(after)
    for name in ("s0", "s1", "s2", "n1"):
        held = values_of(after, name, samples)
        assert np.abs(held.mean(axis=(0, 2, 3))).max() < 1e-3 * np.abs(held).max()  # means are taken out


def test_a_concat_a_gate_and_a_flattened_map() -> None:
    proto = model(
        [
            node("Conv", "x first", "a"),
            node("Relu", "a", "r"),
            node("GlobalAveragePool", "r", "g"),
            node("Conv", "g gate", "h"),
            node("Sigmoid", "h", "s"),
            node("Mul", "r s", "m"),
            node("Concat", "m r", "c", axis=1),
            node("Conv", "c second", "d"),
            node("Relu", "d", "e"),
            node("Flatten", "e", "f"),
            node("Gemm", "f dense dense_bias", "y", transB=1),
        ],
        {"x": (1, 3, 6, 6)},
        ["y"],
        {
            "first": uneven(8, 3, 1, 1),
            "gate": uneven(8, 8, 1, 1, seed=1),
            "second": uneven(6, 16, 1, 1, seed=2),
            "dense": uneven(5, 6 * 36, seed=3),
            "dense_bias": np.zeros(5, np.float32),
        },
    )
    assert_equalised(proto, "a")
    assert_equalised(proto, "d", passes=())  # the catalogue turns the map before it is flattened


def test_what_is_not_homogeneous_stays() -> None:
    for kind in ("Sigmoid", "HardSwish", "Elu"):
        proto = model(
            [node("Conv", "x first", "a"), node(kind, "a", "b"), node("Conv", "b second", "y")],
            {"x": (1, 3, 6, 6)},
            ["y"],
            {"first": uneven(8, 3, 1, 1), "second": uneven(4, 8, 1, 1)},
        )
        prepared = normal(proto, passes=())
        assert equalise(prepared, samples_of(prepared)) is None, kind


def test_weights_of_two_layers_stay() -> None:
    proto = model(
        [node("Conv", "x first", "a"), node("Relu", "a", "b"), node("Conv", "b w", "c"), node("Conv", "c w", "y")],
        {"x": (1, 3, 6, 6)},
        ["y"],
        {"first": uneven(8, 3, 1, 1), "w": uneven(8, 8, 1, 1)},
    )
    prepared = normal(proto)
    assert equalise(prepared, samples_of(prepared)) is None


def test_one_that_is_not_exact_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = nets.uneven()
    prepared = normal(proto)
    samples = make_samples({"image": np.ones((2, 3, 24, 24), np.float32)}, ["a", "b"], "made", synthetic=True)
    assert equalise(prepared, samples) is not None
    monkeypatch.setattr(equalising, "TOLERANCE", -1.0)
    assert equalise(prepared, samples) is None


def test_a_split_is_equalised_where_it_gains_and_can_be_told_not_to(tmp_path: Path) -> None:
    """Through the flow: less noise, the pass and the notes in the manifest, chain = unsplit = tails as ever."""
    path = nets.saved(nets.uneven(), tmp_path)
    chance = np.random.default_rng(0)
    images = chance.standard_normal((12, 3, 24, 24)).astype(np.float32)
    samples = make_samples({"image": images}, [f"{n}" for n in range(12)], "made", synthetic=True)
    plan = PlanOptions(strategy="balanced", segments=2)
    others: tuple[Method, ...] = ("ranges", "weights", "biases")
    choices: tuple[tuple[Method, ...], ...] = (others, ("equalise", *others))
    results = {
        without: flow.split(
            flow.prepare(str(path)),
            samples,
            SplitOptions(plan=plan, without=without, independent=True),
            tmp_path / "-".join(without),
            pool=workers(),
        )
        for without in choices
    }
    with_it, plain = results.values()
    assert with_it.verification.exact
    assert plain.verification.exact
    assert with_it.verification.sqnr_db["logits"] > plain.verification.sqnr_db["logits"] + 1
    assert all("equalised" in part.notes[-1] for part in with_it.segments)
    assert not any("equalised" in note for part in plain.segments for note in part.notes)
    opened = manifest.read(with_it.folder)
    assert "equalise-channels" in [
        each["name"] for each in json.loads((with_it.folder / "meta.json").read_text())["load"]["passes"]
    ]
    assert opened.options["without"] == list(others)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(UsageError, match="without='magic'"):
        SplitOptions(plan=PlanOptions(strategy="balanced", segments=2), without=("magic",))  # type: ignore[arg-type]
