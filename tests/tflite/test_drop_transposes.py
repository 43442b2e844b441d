"""Taking TRANSPOSE operators out changes what a file computes by nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from graphcut.graph.conversion import conversion_copy
from graphcut.graph.load import load
from graphcut.graph.reference import Reference
from graphcut.runtime.litert import Runner
from graphcut.tflite import edit, from_onnx, schema
from graphcut.tflite.drop_transposes import drop_transposes
from graphcut.workers.pool import Call, Pool
from tests.support import nets
from tests.support.places import ROOT


def converted(argument: tuple[Path, Path]) -> bytes:
    """Runs in a worker: onnx2tf's float file as it is."""
    path, folder = argument
    model = load(path)
    copy = conversion_copy(model.proto, model.graph.layers)
    target = folder / "copy.onnx"
    onnx.save(copy.proto, target)
    return from_onnx.convert(target, folder / "scratch", "the net")


def preactivation() -> onnx.ModelProto:
    """Scale and shift a channel, activation, convolution, twice, with a Concat: what DenseNet is made of."""
    b = nets.Builder(1)
    x = b.conv("image", "stem", (3, 8), stride=2)
    for number in range(3):
        width = 8 + 4 * number
        scale = b.weight(f"s{number}", b.rng.uniform(0.5, 1.5, (1, width, 1, 1)))
        shift = b.weight(f"t{number}", b.rng.standard_normal((1, width, 1, 1)))
        y = b.node("Add", [b.node("Mul", [x, scale], f"mul{number}"), shift], f"add{number}")
        y = b.conv(b.node("Relu", [y], f"relu{number}"), f"conv{number}", (width, 4))
        x = b.node("Concat", [x, y], f"concat{number}", axis=1)
    flat = b.node("Flatten", [b.node("GlobalAveragePool", [b.node("Relu", [x], "last")], "pool")], "flat")
    b.dense(flat, "logits", (20, 5))
    return b.model({"image": (1, 3, 16, 16)}, {"logits": (1, 5)})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("transposes")
    path = nets.saved(preactivation(), folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        with Pool(1, folder) as pool:
            call = Call(
                function="tests.tflite.test_drop_transposes:converted", argument=(path, folder), subject="the net"
            )
            (data,) = pool.map([call])
    return path, data


def names(data: bytes) -> list[str]:
    model = schema.read(data)
    return [schema.op_name(model, operator) for operator in edit.graph_of(model).operators]


def cleaned(data: bytes) -> tuple[bytes, int]:
    model = schema.read(data)
    gone = drop_transposes(model)
    edit.compact(model)
    return schema.write(model), gone


def test_the_converter_leaves_some_and_none_is_needed(made):
    _, data = made
    assert names(data).count("TRANSPOSE") >= 3
    clean, gone = cleaned(data)
    assert names(clean).count("TRANSPOSE") == 0
    assert gone >= 3


def test_the_file_computes_the_same(made):
    path, data = made
    clean, _ = cleaned(data)
    image = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)
    wanted = Reference(load(path).proto).run({"image": image})["logits"]
    nhwc = np.ascontiguousarray(image.transpose(0, 2, 3, 1))
    for file in (data, clean):
        np.testing.assert_allclose(Runner(file)([nhwc])[0], wanted, atol=1e-5)


def test_doing_it_again_changes_nothing(made):
    clean, _ = cleaned(made[1])
    again, gone = cleaned(clean)
    assert gone == 0
    assert names(again) == names(clean)


def test_a_tensor_still_needed_in_nchw_is_made_once():
    """NHWC -> TRANSPOSE -> ABS -> RESHAPE to (1, 24): the reshape reads the numbers in NCHW order."""
    model = chain_to_reshape()
    before = schema.write(model)
    model = schema.read(before)
    drop_transposes(model)
    edit.compact(model)
    after = schema.write(model)
    values = np.arange(-12, 12, dtype=np.float32).reshape(1, 2, 3, 4)
    assert names(after) == ["ABS", "TRANSPOSE", "RESHAPE"]
    assert np.array_equal(Runner(after)([values])[0], Runner(before)([values])[0])


def chain_to_reshape():
    from ai_edge_litert import schema_py_generated as fb

    model, graph = fb.ModelT(), fb.SubGraphT()
    model.version, model.buffers, model.subgraphs, model.operatorCodes = 3, [fb.BufferT()], [graph], []
    graph.tensors, graph.operators = [], []

    def tensor(name: str, shape: tuple[int, ...], values: np.ndarray | None = None) -> int:
        made = fb.TensorT()
        made.name, made.shape = name.encode(), np.array(shape, np.int32)
        made.type = fb.TensorType.FLOAT32 if values is None else fb.TensorType.INT32
        made.buffer = 0
        if values is not None:
            schema.set_constant(model, made, values)
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def operator(builtin: int, inputs: list[int], output: int, kind: int, options: object) -> None:
        code, made = fb.OperatorCodeT(), fb.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = builtin
        code.version = 1
        model.operatorCodes.append(code)
        made.opcodeIndex = len(model.operatorCodes) - 1
        made.inputs, made.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        made.builtinOptionsType, made.builtinOptions = kind, options
        graph.operators.append(made)

    x = tensor("x", (1, 2, 3, 4))
    turned, positive = tensor("turned", (1, 4, 2, 3)), tensor("positive", (1, 4, 2, 3))
    flat = tensor("flat", (1, 24))
    order = tensor("order", (4,), np.array([0, 3, 1, 2], np.int32))
    shape = tensor("shape", (2,), np.array([1, 24], np.int32))
    kinds, builtins = fb.BuiltinOptions, fb.BuiltinOperator
    operator(builtins.TRANSPOSE, [x, order], turned, kinds.TransposeOptions, fb.TransposeOptionsT())
    operator(builtins.ABS, [turned], positive, kinds.AbsOptions, fb.AbsOptionsT())
    operator(builtins.RESHAPE, [positive, shape], flat, kinds.ReshapeOptions, fb.ReshapeOptionsT())
    edit.set_interface(model, [x], [flat])
    return model
