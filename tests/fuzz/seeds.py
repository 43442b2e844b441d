"""What mutation starts from: small valid files of every kind that the command line reads."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests.support.places import ROOT

OPSET = 17


def _model(nodes: list[onnx.NodeProto], outputs: list[str], weights: dict[str, np.ndarray], **more: object) -> bytes:
    graph = helper.make_graph(
        nodes,
        "seed",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=imports, **more).SerializeToString()


@cache
def onnx_models() -> tuple[bytes, ...]:
    """Nets that hold between them most operators of CNNs, constants, shape arithmetic, functions and branches."""
    rng = np.random.default_rng(7)

    def weight(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / 4).astype(np.float32)

    node = helper.make_node
    first = _model(
        [
            node("Conv", ["image", "w1", "b1"], ["c1"], strides=[2, 2], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
            node("BatchNormalization", ["c1", "s", "s", "s", "v"], ["n1"], epsilon=1e-3),
            node("Relu", ["n1"], ["r1"]),
            node("Conv", ["r1", "w2"], ["d1"], group=8, pads=[1, 1, 1, 1], dilations=[1, 1]),
            node("Add", ["d1", "r1"], ["a1"]),
            node("MaxPool", ["a1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
            node("GlobalAveragePool", ["p1"], ["g1"]),
            node("Flatten", ["g1"], ["f1"]),
            node("Gemm", ["f1", "w3", "b3"], ["l1"], transB=1),
            node("Softmax", ["l1"], ["y"], axis=-1),
        ],
        ["y"],
        {
            "w1": weight(8, 3, 3, 3),
            "b1": weight(8),
            "s": weight(8),
            "v": np.abs(weight(8)) + 1,
            "w2": weight(8, 1, 3, 3),
        }
        | {"w3": weight(5, 8), "b3": weight(5)},
    )
    second = _model(
        [
            node("Transpose", ["image"], ["t"], perm=[0, 2, 3, 1]),
            node("Transpose", ["t"], ["t2"], perm=[0, 3, 1, 2]),
            node("Conv", ["t2", "w"], ["c"], auto_pad="SAME_UPPER", kernel_shape=[3, 3]),
            node("Sigmoid", ["c"], ["g"]),
            node("Mul", ["c", "g"], ["m"]),
            node("Pad", ["m", "pads"], ["p"], mode="constant"),
            node("AveragePool", ["p"], ["q"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
            node("Resize", ["q", "", "scales"], ["u"], mode="nearest"),
            node("Slice", ["u", "starts", "ends", "axes"], ["s"]),
            node("Concat", ["s", "s"], ["k"], axis=1),
            node("ConvTranspose", ["k", "wt", "bt"], ["y"], strides=[2, 2]),
        ],
        ["y"],
        {
            "w": weight(4, 3, 3, 3),
            "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
            "scales": np.array([1, 1, 2, 2], np.float32),
            "starts": np.array([0], np.int64),
            "ends": np.array([8], np.int64),
            "axes": np.array([2], np.int64),
            "wt": weight(8, 2, 2, 2),
            "bt": weight(2),
        },
    )
    third = _model(
        [
            node("Conv", ["image", "w"], ["c"], kernel_shape=[1, 1]),
            node("Shape", ["c"], ["shape"]),
            node("Constant", [], ["zero"], value=numpy_helper.from_array(np.array(0, np.int64))),
            node("Gather", ["shape", "zero"], ["batch"]),
            node("Unsqueeze", ["batch", "axis0"], ["batch1"]),
            node("Constant", [], ["rest"], value_ints=[-1]),
            node("Concat", ["batch1", "rest"], ["target"], axis=0),
            node("Reshape", ["c", "target"], ["flat"]),
            node("MatMul", ["flat", "wm"], ["m"]),
            node("Clip", ["m", "low", "high"], ["k"]),
            node("Split", ["k", "halves"], ["left", "right"], axis=1),
            node("Sub", ["left", "right"], ["y"]),
        ],
        ["y"],
        {
            "w": weight(4, 3, 1, 1),
            "axis0": np.array([0], np.int64),
            "wm": weight(4 * 256, 6),
            "low": np.array(0, np.float32),
            "high": np.array(6, np.float32),
            "halves": np.array([3, 3], np.int64),
        },
    )
    swish = helper.make_function(
        "local",
        "Swish",
        ["a"],
        ["b"],
        [node("Sigmoid", ["a"], ["s"]), node("Mul", ["a", "s"], ["b"])],
        [helper.make_opsetid("", OPSET)],
    )
    branch = helper.make_graph(
        [node("Relu", ["c"], ["r"])], "then", [], [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)]
    )
    other = helper.make_graph(
        [node("Tanh", ["c"], ["h"])], "else", [], [helper.make_tensor_value_info("h", TensorProto.FLOAT, None)]
    )
    fourth = _model(
        [
            node("Conv", ["image", "w"], ["c0"], kernel_shape=[3, 3]),
            node("Swish", ["c0"], ["c"], domain="local"),
            node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
            node("If", ["yes"], ["i"], then_branch=branch, else_branch=other),
            node("InstanceNormalization", ["i", "s", "s"], ["n"]),
            node("ReduceMean", ["n"], ["m"], axes=[2, 3], keepdims=1),
            node("DepthToSpace", ["n"], ["d"], blocksize=2, mode="DCR"),
            node("Squeeze", ["m", "axes"], ["y"]),
        ],
        ["y", "d"],
        {"w": weight(4, 3, 3, 3), "s": weight(4), "axes": np.array([2, 3], np.int64)},
        functions=[swish],
    )
    return first, second, third, fourth


@cache
def tflite_models() -> tuple[bytes, ...]:
    """A float file and an int8 file."""
    from tests.support.made_tflite import Made

    made = Made()
    fed = made.tensor((1, 8, 8, 4), name="image")
    out = made.conv(fed, 8, 3, 2)
    out = made.conv(out, 4)
    return (made.done([fed], [out]),)


@cache
def hdf5_models() -> tuple[bytes, ...]:
    """A Keras model in HDF5."""
    import h5py

    config = json.loads(KERAS_CONFIG)
    target = io.BytesIO()
    with h5py.File(target, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.15.0"
        file.attrs["backend"] = "tensorflow"
        group = file.create_group("model_weights/conv/conv")
        group.create_dataset("kernel:0", data=np.zeros((3, 3, 3, 4), np.float32))
        group.create_dataset("bias:0", data=np.zeros(4, np.float32), chunks=(4,), compression="gzip")
        file["model_weights/conv"].attrs["weight_names"] = [b"conv/kernel:0", b"conv/bias:0"]
        file["model_weights"].attrs["layer_names"] = [b"conv"]
    return (target.getvalue(),)


KERAS_CONFIG = json.dumps(
    {
        "class_name": "Sequential",
        "config": {
            "name": "net",
            "layers": [
                {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 8, 8, 3], "name": "image"}},
                {
                    "class_name": "Conv2D",
                    "config": {
                        "name": "conv",
                        "filters": 4,
                        "kernel_size": [3, 3],
                        "activation": "relu",
                        "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}},
                    },
                },
            ],
        },
    }
)


@cache
def keras_archives() -> tuple[bytes, ...]:
    """A Keras model in a .keras archive."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(zipfile.ZipInfo("metadata.json"), '{"keras_version": "3.15.0"}')
        archive.writestr(zipfile.ZipInfo("config.json"), KERAS_CONFIG)
        archive.writestr(zipfile.ZipInfo("model.weights.h5"), hdf5_models()[0])
    return (target.getvalue(),)


@cache
def torch_programs() -> tuple[bytes, ...]:
    """An archive that is laid out as a .pt2 file is."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(zipfile.ZipInfo("net/archive_format"), "pt2")
        archive.writestr(zipfile.ZipInfo("net/archive_version"), "0")
        archive.writestr(zipfile.ZipInfo("net/byteorder"), "little")
        archive.writestr(
            zipfile.ZipInfo("net/models/model.json"), json.dumps({"graph_module": {"graph": {"nodes": []}}})
        )
        archive.writestr(zipfile.ZipInfo("net/data/weights/model.pt"), b"PK\x03\x04")
    return (target.getvalue(),)


@cache
def arrays() -> tuple[bytes, ...]:
    """An .npz for a model whose input is 1 x 3 x 16 x 16."""
    found = []
    values = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    for save in (np.savez, np.savez_compressed):
        target = io.BytesIO()
        save(target, image=values)
        found.append(target.getvalue())
    return tuple(found)


@cache
def array() -> tuple[bytes, ...]:
    """An .npy for the same model."""
    target = io.BytesIO()
    np.save(target, np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32))
    return (target.getvalue(),)


@cache
def _split_folder() -> dict[str, bytes]:
    """The files of a small split, made by the command line."""
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "net.onnx").write_bytes(chain_of_convolutions())
        subprocess.run(
            [
                *(sys.executable, "-m", "graphcut", "split", f"{place}/net.onnx", "--segments", "2"),
                *("--calibration", "random", "-o", f"{place}/out"),
            ],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        found = sorted(path for path in Path(place, "out").rglob("*") if path.is_file())
        return {path.relative_to(Path(place, "out")).as_posix(): path.read_bytes() for path in found}


def unpack_split(folder: Path) -> None:
    """Write the files of a small split."""
    for name, content in _split_folder().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def chain_of_convolutions() -> bytes:
    rng = np.random.default_rng(1)
    nodes, weights, last = [], {}, "image"
    for number, channels in enumerate((3, 8, 8)):
        weights[f"w{number}"] = (rng.standard_normal((8, channels, 3, 3)) / 4).astype(np.float32)
        nodes.append(helper.make_node("Conv", [last, f"w{number}"], [f"c{number}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        last = f"r{number}"
    return _model(nodes, [last], weights)


@cache
def splits() -> tuple[bytes, ...]:
    """The folder of a split, in a zip archive."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in _split_folder().items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return (target.getvalue(),)


@cache
def plans() -> tuple[bytes, ...]:
    """What ``graphcut plan --json`` says."""
    return (json.dumps({"certificate": json.loads(_split_folder()["certificate.json"]), "options": {}}).encode(),)


@cache
def sample() -> bytes:
    """One input of the split."""
    target = io.BytesIO()
    np.save(target, np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32))
    return target.getvalue()


@cache
def pictures() -> tuple[bytes, ...]:
    """Small pictures in the formats that calibration reads."""
    found = []
    generator = random.Random(0)
    for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"):
        picture = Image.frombytes("RGB", (20, 16), generator.randbytes(960))
        target = io.BytesIO()
        picture.save(target, kind)
        found.append(target.getvalue())
    return tuple(found)


RECIPE = b"""source = "keras"
application = "MobileNetV2"
input_shape = [224, 224, 3]
seed = 0
opset = 17

[preprocessing]
colour = "rgb"
mean = [127.5]
std = [127.5]
"""


def recipes() -> tuple[bytes, ...]:
    """A recipe."""
    return (RECIPE,)
