"""Every architecture of ../shared/zoo at 2, 4 and 7 MiB: split, proved, and at least 24 dB at its outputs.

Run with ``make test-zoo``; prints one row a case (model, nodes, S, K, minimal K, lower bound, most tensors at a seam,
lowest dB at an output, exact, seconds).
"""

from __future__ import annotations

import runpy
import time
from pathlib import Path

import onnx
import pytest

from graphcut import flow
from graphcut.graph.model import Model
from graphcut.planning import plan_options
from graphcut.planning.make_plan import whole_bytes
from graphcut.planning.plan_options import PlanOptions
from graphcut.prediction.sizes import predict
from graphcut.result import manifest
from graphcut.samples import load_samples
from tests.support.places import SHARED

pytestmark = [pytest.mark.zoo, pytest.mark.timeout(1800)]

ZOO = SHARED / "zoo"
MODELS = sorted(path.stem for path in ZOO.glob("*.onnx"))
MIB = 2**20
LOWEST_DB = 24.0

_loaded: dict[str, Model] = {}


def materialised(name: str, folder: Path) -> Model:
    if name not in _loaded:
        _loaded.clear()
        tools = runpy.run_path(str(ZOO / "materialize.py"))
        path = folder / f"{name}.onnx"
        onnx.save(tools["materialize"](onnx.load(ZOO / f"{name}.onnx", load_external_data=False)), path)
        _loaded[name] = flow.prepare(str(path))
    return _loaded[name]


@pytest.mark.skipif(not MODELS, reason=f"the zoo is not there: no models in {ZOO}")
@pytest.mark.parametrize("budget", [2, 4, 7])
@pytest.mark.parametrize("name", MODELS or ["none"])
def test_it_splits_and_is_proved(name: str, budget: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = materialised(name, tmp_path)
    if whole_bytes(predict(model.graph)) <= budget * MIB:
        pytest.skip(f"{name} fits {budget} MiB whole")
    start = time.monotonic()
    samples = load_samples("random", model.inputs, None)
    options = plan_options.SplitOptions(plan=PlanOptions(budget_bytes=budget * MIB))
    result = flow.split(model, samples, options, tmp_path / "out")
    proved, plan = result.verification, result.plan
    outputs = {tensor.layer for tensor in result.tails[0].outputs} | {"logits"}
    lowest = min(db for layer, db in proved.sqnr_db.items() if layer in outputs)
    seam = max((len(part.inputs) for part in result.segments[1:]), default=0)
    with capsys.disabled():
        print(
            f"\n{name:22} {len(model.graph.nodes):4} nodes  S={budget}  K={plan.k} (min {plan.minimal_k}, bound "
            f"{plan.lower_bound})  seam {seam}  {lowest:5.1f} dB  exact {proved.exact}  "
            f"{time.monotonic() - start:5.1f} s",
            end="",
        )
    assert proved.passed, proved.findings
    assert proved.exact
    assert proved.float_exact
    assert all(part.segment.tflite_bytes <= budget * MIB for part in result.segments)
    document = manifest.read(result.folder).document
    predicted = [part["predicted_tflite_bytes"] for part in document["segments"]]
    assert predicted == pytest.approx([part.segment.tflite_bytes for part in result.segments], rel=0.001)
    assert lowest >= LOWEST_DB
