"""Tiny ONNX models written out node by node, and what the tests of the graph room do with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper

from graphcut import flow
from graphcut.graph.model import Model
from graphcut.graph.normalise import normalise
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.catalogue import PASSES
from graphcut.planning import plan_options
from graphcut.planning.plan_options import PlanOptions
from graphcut.progress import silent
from graphcut.records import PassReport, Shape, Source
from graphcut.samples import load_samples
from tests.support.warm import workers

Dims = Sequence[int | str]
Values = npt.NDArray[np.generic]


def node(op_type: str, inputs: str, outputs: str, name: str = "", **attributes: object) -> NodeProto:
    """A node; inputs and outputs are names separated by blanks, "-" for an omitted one."""
    names = ["" if item == "-" else item for item in inputs.split()]
    return helper.make_node(op_type, names, outputs.split(), name=name, **attributes)


def weights(seed: int = 0, **shapes: Dims) -> dict[str, Values]:
    """Seeded normal float32 weights by name."""
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def ints(*values: int) -> Values:
    return np.array(values, dtype=np.int64)


def model(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Dims],
    outputs: Sequence[str],
    constants: Mapping[str, Values] | None = None,
    *,
    opset: int = 17,
    ir_version: int = 8,
    dtype: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model; the outputs' shapes are left for onnxruntime and the normaliser to find."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, dtype, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def normal(
    proto: onnx.ModelProto, *, passes: Sequence[Pass] = PASSES, input_shapes: Mapping[str, Shape] | None = None
) -> Model:
    """The model normalised; ``proto`` itself stays as it is."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    source = Source(kind="onnx", name="net", sha256=sha256(b"").hexdigest())
    return normalise(copy, source, input_shapes=input_shapes or {}, report=silent, passes=passes)


def ops(normalised: Model) -> list[str]:
    """Operator types, in order."""
    return [item.op_type for item in normalised.graph.nodes]


def report_of(normalised: Model, name: str) -> PassReport:
    """What the pass of that name did."""
    return next(item for item in normalised.passes if item.name == name)


def run(proto: onnx.ModelProto | Path, inputs: Mapping[str, Values]) -> list[Values]:
    """All outputs, in onnxruntime with optimisations off, without any of the code under test."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    data = str(proto) if isinstance(proto, Path) else proto.SerializeToString()
    return list(onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, dict(inputs)))


def random_inputs(normalised: Model, seed: int = 7) -> dict[str, Values]:
    """A standard normal array for every input, in the normalised layout."""
    generator = np.random.default_rng(seed)
    return {item.name: generator.standard_normal(item.shape).astype(np.float32) for item in normalised.inputs}


def assert_same(proto: onnx.ModelProto, normalised: Model, tolerance: float = 1e-5) -> None:
    """Assert that the normalised model computes what the file computes, layouts allowed for."""
    inputs = random_inputs(normalised)
    exported = {
        item.name: inputs[item.name].transpose(0, 2, 3, 1) if item.source_layout == "NHWC" else inputs[item.name]
        for item in normalised.inputs
    }
    wanted = run(proto, exported)
    found = run(normalised.proto, inputs)
    for name, before, after in zip(normalised.graph.outputs, wanted, found, strict=True):
        value = after.transpose(0, 2, 3, 1) if name in normalised.nhwc_outputs else after
        assert value.shape == before.shape
        np.testing.assert_allclose(value, before, rtol=0, atol=tolerance * max(float(np.abs(before).max()), 1e-6))


def split_in_two(proto: onnx.ModelProto, folder: Path, segments: int = 2) -> flow.SplitResult:
    """A model through the whole pipeline, in segments as even as can be, on four random samples."""
    path = folder / "net.onnx"
    onnx.save(proto, path)
    prepared = flow.prepare(str(path))
    options = plan_options.SplitOptions(plan=PlanOptions(strategy="balanced", segments=segments), jobs=1)
    samples = load_samples("random", prepared.inputs, None, limit=4)
    return flow.split(prepared, samples, options, folder / "out", pool=workers())
