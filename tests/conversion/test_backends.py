"""Backends are tried in order until one computes the right thing."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphcut.conversion.convert_segment import Float, first_right
from graphcut.conversion.job import ConversionJob, EdgeActivation
from graphcut.conversion.tensorflow_backend import convert_apart
from graphcut.errors import ConversionError
from graphcut.graph.conversion import conversion_copy
from graphcut.graph.load import load
from graphcut.graph.reference import activations
from graphcut.measurement.metrics import to_nhwc
from graphcut.records import Samples
from graphcut.tflite import from_onnx
from graphcut.workers.pool import Call, Pool
from tests.support import nets
from tests.support.places import ROOT


def attempt(outcomes: dict[str, Float | str]):
    def run(backend: str) -> Float:
        outcome = outcomes[backend]
        if isinstance(outcome, str):
            raise ConversionError(outcome, "do something")
        return outcome

    return run


RIGHT = Float(segment=None, observed={}, error=1e-6, backend="second")  # type: ignore[arg-type]


def test_the_first_right_backend_wins_and_the_others_are_noted():
    made, notes = first_right(("first", "second", "third"), attempt({"first": "PADV2 is wrong", "second": RIGHT}))
    assert made is RIGHT
    assert notes == ("first failed: PADV2 is wrong",)


def test_where_none_is_right_the_first_error_is_told():
    with pytest.raises(ConversionError, match="PADV2 is wrong; tried first, second") as caught:
        first_right(("first", "second"), attempt({"first": "PADV2 is wrong", "second": "so is this"}))
    assert caught.value.way_out == "do something"


def test_tensorflow_is_only_offered_where_it_is_installed():
    offered = from_onnx.backends()
    assert offered[:3] == (from_onnx.DIRECT, from_onnx.BEGUN, from_onnx.SIMPLIFIED)
    assert (from_onnx.TENSORFLOW in offered) == (find_spec("tensorflow") is not None)


def convert_by(argument: tuple[ConversionJob, str]) -> float:
    """Runs in a worker: the float error of one backend."""
    from graphcut.conversion.convert_segment import _float

    job, backend = argument
    feeds = [[to_nhwc(entry.values[n : n + 1]) for entry in job.inputs] for n in range(2)]
    return _float(job, feeds, backend).error


@pytest.mark.parametrize(
    "backend",
    [
        from_onnx.DIRECT,
        from_onnx.BEGUN,
        from_onnx.SIMPLIFIED,
        pytest.param(from_onnx.TENSORFLOW, marks=pytest.mark.keras),
    ],
)
def test_every_backend_converts_a_small_net(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = load(nets.saved(nets.two_heads(), tmp_path))
    images = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    samples = Samples(arrays={"image": images}, names=("0", "1"), origin="test", synthetic=True, sha256="")
    values = activations(model, samples, ("image", "map", "score"))
    copy = conversion_copy(model.proto, model.graph.layers)
    onnx.save(copy.proto, tmp_path / "copy.onnx")

    def edge(name: str) -> EdgeActivation:
        return EdgeActivation(tensor=name, layer=name, values=values[name])

    job = ConversionJob(
        subject="the net",
        onnx_path=tmp_path / "copy.onnx",
        target=tmp_path / "net.tflite",
        scratch=tmp_path,
        inputs=(edge("image"),),
        outputs=(edge("map"), edge("score")),
        logits={},
        samples=len(samples),
        endings=copy.endings,
        readers=copy.readers,
        ranges={},
        per_channel=True,
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    call = Call(function="tests.conversion.test_backends:convert_by", argument=(job, backend), subject="the net")
    with Pool(1, tmp_path) as pool:
        assert pool.map([call])[0] < 1e-4


def test_tensorflow_that_needs_too_much_memory_is_an_error_like_any_other(tmp_path: Path):
    """Its process is stopped by what it holds, not by the address space that it reserves."""
    path = nets.saved(nets.two_heads(), tmp_path)
    with pytest.raises(ConversionError, match=r"the net needed more than 0\.0 GiB of memory"):
        convert_apart(path, tmp_path / "scratch", "the net", keep_shape=(), memory=2**20)
