"""Files in the form old parsers expect: the versions a converter writes, and the same numbers."""

import copy
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from graphcut.edgetpu import operator_check
from graphcut.tflite import schema
from graphcut.tflite.legacy_form import acceptable
from tests.support.made_tflite import Made
from tests.support.places import SHARED

FLOAT16 = 1  # TensorType of the TFLite schema
CONVERTED = [
    *sorted((SHARED / "models").glob("*.tflite")),
    *(path for path in sorted((SHARED / "edgetpu" / "pairs").glob("*.tflite")) if "_edgetpu" not in path.name),
]


def versions(model: Any) -> list[tuple[str, int]]:
    """Operator and version, in execution order, without weights that are stored as float16.

    Of those, files of MediaPipe say version 2, and TensorFlow's own table (lite/tools/versioning/op_version.cc) 3.
    """
    (graph,) = model.subgraphs
    return [
        (schema.op_name(model, operator), model.operatorCodes[operator.opcodeIndex].version)
        for operator in graph.operators
        if graph.tensors[int(operator.inputs[0])].type != FLOAT16
    ]


def blurred(model: Any) -> Any:
    """The same model as a careless converter writes it: everything version 1."""
    for code in model.operatorCodes:
        code.version = 1
    return model


@pytest.mark.skipif(not CONVERTED, reason="no converted files beside the repository")
@pytest.mark.parametrize("path", CONVERTED, ids=lambda path: path.stem)
def test_versions_are_those_that_tensorflows_converter_wrote(path: Path) -> None:
    data = path.read_bytes()
    there = versions(schema.read(data))
    model = blurred(schema.read(data))
    acceptable(model)
    # The converter keeps one code for all depthwise convolutions; here those without dilation have their own.
    newest = dict(sorted(versions(model)))
    assert newest == dict(sorted(there))
    assert [name for name, _ in versions(model)] == [name for name, _ in there]


def network() -> tuple[Made, int, int]:
    """Every kind of operator a segment has, all version 1, a PADV2 among them."""
    made = Made()
    fed = made.tensor((1, 12, 12, 3), scale=0.05, zero_point=3, name="input")
    padded = made.tensor((1, 14, 14, 3), scale=0.05, zero_point=3)
    pads = made.tensor((4, 2), dtype=np.int32, scale=None, data=[[0, 0], [1, 1], [1, 1], [0, 0]])
    value = made.tensor((1,), scale=0.05, zero_point=3, data=3)
    made.op("PADV2", [fed, pads, value], [padded])
    first = made.conv(padded, 8, 3, padding=1, version=1)
    made.graph.tensors[first].shape = np.array([1, 12, 12, 8], np.int32)
    second = made.conv(first, 8, 1, version=1)
    added = made.tensor((1, 12, 12, 8), scale=0.2, zero_point=-100)
    made.op("ADD", [first, second], [added])
    pooled = made.tensor((1, 6, 6, 8), scale=0.2, zero_point=-100)
    made.op("MAX_POOL_2D", [added], [pooled], strideH=2, strideW=2, filterHeight=2, filterWidth=2, padding=1)
    mean = made.tensor((1, 1, 1, 8), scale=0.1, zero_point=-100)
    made.op("MEAN", [pooled, made.tensor((2,), dtype=np.int32, scale=None, data=[1, 2])], [mean], keepDims=True)
    flat = made.tensor((1, 8), scale=0.1, zero_point=-100)
    made.op("RESHAPE", [mean, made.tensor((2,), dtype=np.int32, scale=None, data=[1, 8])], [flat])
    chance = np.random.default_rng(0)
    weights = made.tensor((10, 8), scale=0.01, data=chance.integers(-127, 128, (10, 8)))
    bias = made.tensor((10,), dtype=np.int32, scale=0.001, data=chance.integers(-900, 900, 10))
    dense = made.tensor((1, 10), scale=0.1)
    made.op("FULLY_CONNECTED", [flat, weights, bias], [dense])
    out = made.tensor((1, 10), scale=1 / 256, zero_point=-128, name="output")
    made.op("SOFTMAX", [dense], [out], beta=1.0)
    return made, fed, out


def run(data: bytes, count: int = 5) -> np.ndarray[Any, Any]:
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    (fed,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    chance = np.random.default_rng(7)
    outputs = []
    for _ in range(count):
        interpreter.set_tensor(fed["index"], chance.integers(-128, 128, fed["shape"]).astype(fed["dtype"]))
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(made["index"]))
    return np.concatenate(outputs)


def test_versions_pads_and_numbers_of_a_network() -> None:
    made, fed, out = network()
    before = made.done([fed], [out])
    model = schema.read(before)
    acceptable(model)
    after = schema.write(model)
    assert versions(schema.read(after)) == [
        ("PAD", 2),
        ("CONV_2D", 3),
        ("CONV_2D", 3),
        ("ADD", 2),
        ("MAX_POOL_2D", 2),
        ("MEAN", 2),
        ("RESHAPE", 1),
        ("FULLY_CONNECTED", 4),
        ("SOFTMAX", 2),
    ]
    assert np.array_equal(run(after), run(before))
    assert len(np.unique(run(after))) > 3
    assert schema.read(after).description == b"made for a test"


def test_the_edge_tpu_takes_the_pad_but_not_the_padv2() -> None:
    made, fed, out = network()
    model = schema.read(made.done([fed], [out]))
    assert operator_check.check_model(model, "made").ops[0].status == "Operation not supported"
    acceptable(model)
    assert operator_check.check_model(model, "made").accepted


def test_a_padv2_of_something_else_stays() -> None:
    made, fed, out = network()
    made.model.buffers[2].data = np.array([7], np.int8).view(np.uint8)
    model = schema.read(made.done([fed], [out]))
    acceptable(model)
    assert versions(model)[0] == ("PADV2", 2)


def test_twice_is_once() -> None:
    made, fed, out = network()
    model = schema.read(made.done([fed], [out]))
    acceptable(model)
    once = schema.write(copy.deepcopy(model))
    acceptable(model)
    assert schema.write(model) == once


def test_operators_that_shared_a_code_get_their_own() -> None:
    made = Made()
    fed = made.tensor((1, 8))
    byte = made.tensor((1, 8))
    made.op("LOGISTIC", [fed], [byte])
    back, real = (made.tensor((1, 8), dtype=np.float32, scale=None) for _ in range(2))
    made.op("DEQUANTIZE", [byte], [back])
    made.op("LOGISTIC", [back], [real])
    model = schema.read(made.done([fed], [real]))
    assert len(model.operatorCodes) == 2
    acceptable(model)
    assert versions(model) == [("LOGISTIC", 2), ("DEQUANTIZE", 2), ("LOGISTIC", 1)]


@pytest.mark.parametrize(
    ("kind", "shapes", "options", "version"),
    [
        ("FULLY_CONNECTED", [(1, 4), (3, 4)], {}, 6),
        ("FULLY_CONNECTED", [(1, 4), (3, 4), (3,)], {"keepNumDims": True}, 5),
        ("CONV_2D", [(1, 4, 4, 8), (6, 1, 1, 4), (6,)], {}, 6),
        ("RESIZE_BILINEAR", [(1, 4, 4, 8)], {"halfPixelCenters": True}, 3),
        ("RESIZE_BILINEAR", [(1, 4, 4, 8)], {}, 2),
        ("STRIDED_SLICE", [(1, 4, 4, 8)], {"newAxisMask": 1}, 6),
        ("CONCATENATION", [(1, 4), (1, 4)], {}, 2),
        ("MUL", [(1, 4), (1, 4)], {}, 2),
        ("TRANSPOSE", [(1, 1, 2, 3, 4)], {}, 4),
        ("PRELU", [(1, 4, 4, 2)], {}, 1),
        ("RELU", [(1, 4)], {}, 2),
    ],
)
def test_a_version_follows_types_and_options(
    kind: str, shapes: list[tuple[int, ...]], options: dict[str, Any], version: int
) -> None:
    made = Made()
    inputs = [made.tensor(shape) for shape in shapes]
    out = made.tensor(shapes[0])
    made.op(kind, inputs, [out], **options)
    model = schema.read(made.done(inputs[:1], [out]))
    acceptable(model)
    assert versions(model) == [(kind, version)]


def test_a_product_that_grows_needs_a_newer_mul() -> None:
    made = Made()
    first, second, out = made.tensor((1, 4), scale=2.0), made.tensor((1, 4), scale=2.0), made.tensor((1, 4), scale=3.0)
    made.op("MUL", [first, second], [out])
    model = schema.read(made.done([first, second], [out]))
    acceptable(model)
    assert versions(model) == [("MUL", 3)]


def test_quantisation_is_plain() -> None:
    made = Made()
    fed, out = made.tensor((1, 8, 8, 4), name="input"), made.tensor((1, 8, 8, 4))
    made.op("RELU", [fed], [out])
    quantization = made.graph.tensors[fed].quantization
    quantization.quantizedDimension, quantization.zeroPoint = 3, None
    quantization.min = quantization.max = np.array([1], np.float32)
    made.graph.tensors[fed].shapeSignature = np.array([1, 8, 8, 4], np.int32)
    made.graph.tensors[out].quantization.scale = None
    model = schema.read(made.done([fed], [out]))
    acceptable(model)
    tensor = model.subgraphs[0].tensors[fed]
    assert tensor.quantization.zeroPoint.tolist() == [0]
    assert tensor.quantization.quantizedDimension == 0
    assert tensor.quantization.min is None
    assert tensor.shapeSignature is None
    assert model.subgraphs[0].tensors[out].quantization is None


def test_a_dynamic_shape_is_not_hidden() -> None:
    made = Made()
    fed, out = made.tensor((1, 8)), made.tensor((1, 8))
    made.op("RELU", [fed], [out])
    made.graph.tensors[fed].shapeSignature = np.array([-1, 8], np.int32)
    model = schema.read(made.done([fed], [out]))
    acceptable(model)
    assert model.subgraphs[0].tensors[fed].shapeSignature.tolist() == [-1, 8]


def test_an_open_shape_inside_a_file_of_static_inputs_is_static() -> None:
    made = Made()
    fed, middle, out = (made.tensor((1, 8)) for _ in range(3))
    made.op("RELU", [fed], [middle])
    made.op("RELU", [middle], [out])
    made.graph.tensors[middle].shapeSignature = np.array([-1, 8], np.int32)
    model = schema.read(made.done([fed], [out]))
    acceptable(model)
    assert model.subgraphs[0].tensors[middle].shapeSignature is None


def test_old_and_new_operator_codes() -> None:
    made, fed, out = network()
    gelu = made.tensor((1, 10))
    made.op("GELU", [out], [gelu])
    model = schema.read(made.done([fed], [gelu]))
    for code in model.operatorCodes:
        code.deprecatedBuiltinCode = 0
    acceptable(model)
    assert all(code.deprecatedBuiltinCode == min(code.builtinCode, 127) for code in model.operatorCodes)
    assert max(code.builtinCode for code in model.operatorCodes) > 127


def python_3_11() -> str | None:
    """A Python 3.11 that runs: on PATH, or in a version manager's folder."""
    home = Path.home()
    folders = (home / ".pyenv/versions", home / ".local/share/uv/python", home / ".asdf/installs/python")
    candidates = [
        shutil.which("python3.11"),
        *(str(p) for f in folders for p in sorted(f.glob("*3.11*/bin/python3.11"))),
    ]
    for candidate in filter(None, candidates):
        asked = subprocess.run(
            [candidate, "-c", "import sys, venv; print(sys.version_info[:2] == (3, 11))"],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.stdout.strip() == "True":
            return candidate
    return None


OLD_RUN = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter
interpreter = Interpreter(model_path=sys.argv[1])
interpreter.allocate_tensors()
(fed,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
chance = np.random.default_rng(7)
outputs = []
for _ in range(5):
    interpreter.set_tensor(fed["index"], chance.integers(-128, 128, fed["shape"]).astype(fed["dtype"]))
    interpreter.invoke()
    outputs.append(interpreter.get_tensor(made["index"]))
np.save(sys.argv[2], np.concatenate(outputs))
"""


@pytest.mark.network
def test_the_old_runtime_on_python_3_11_gives_the_same_numbers(tmp_path: Path) -> None:
    python = python_3_11()
    if python is None:
        pytest.skip("no Python 3.11, which tflite-runtime 2.14 needs")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    old = tmp_path / "old"
    subprocess.run([python, "-m", "venv", str(old)], check=True, env=clean)
    packages = ["tflite-runtime==2.14.0", "numpy==1.26.4"]
    subprocess.run([str(old / "bin/python"), "-m", "pip", "install", "-q", *packages], check=True, env=clean)
    made, fed, out = network()
    model = schema.read(made.done([fed], [out]))
    acceptable(model)
    data = schema.write(model)
    (tmp_path / "net.tflite").write_bytes(data)
    arguments = [str(old / "bin/python"), "-c", OLD_RUN, str(tmp_path / "net.tflite"), str(tmp_path / "out.npy")]
    subprocess.run(arguments, check=True, env=clean)
    there, here = np.load(tmp_path / "out.npy").astype(int), run(data).astype(int)
    # Kernels of two releases may round the last step differently; more would be another network.
    assert np.abs(there - here).max() <= 1
