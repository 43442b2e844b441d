"""What the Edge TPU takes: the limits one by one, and predictions against real compiled twins."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphcut.edgetpu import compiled, limits, operator_check
from graphcut.errors import GraphcutError, ModelError
from graphcut.tflite import checked
from tests.edgetpu.test_compiled import damage, one_line
from tests.support.compiled_files import compiled_file
from tests.support.made_tflite import Made
from tests.support.places import SHARED

PAIRS = sorted((SHARED / "edgetpu" / "pairs").glob("*_edgetpu.tflite"))
needs_pairs = pytest.mark.skipif(not PAIRS, reason="no real pairs beside the repository")


def result(made: Made, inputs: list[int], outputs: list[int]) -> operator_check.Check:
    return operator_check.check_model(checked.read(made.done(inputs, outputs), "made"), "made")


def one(
    op: str, shape: tuple[int, ...], out: tuple[int, ...], *constants: Any, **options: Any
) -> operator_check.OpCheck:
    """The verdict on one operator fed with an activation and constants (int32 where integers are given)."""
    made = Made()
    fed, done = made.tensor(shape), made.tensor(out)
    rest = [
        made.tensor(np.shape(values), dtype=np.asarray(values).dtype, data=values, scale=None)
        if np.asarray(values).dtype == np.int32
        else made.tensor(np.shape(values), dtype=np.int8, data=values)
        for values in constants
    ]
    made.op(op, [fed, *rest], [done], **options)
    return result(made, [fed], [done]).ops[0]


def ints(*values: Any) -> Any:
    return np.array(values, np.int32)


@needs_pairs
@pytest.mark.parametrize("twin", PAIRS, ids=lambda path: path.stem)
def test_predicts_what_the_real_compiler_left_on_the_cpu(twin: Path) -> None:
    original = twin.with_name(f"{twin.stem.removesuffix('_edgetpu')}.tflite")
    found = operator_check.check(original)
    assert found.cpu_ops == compiled.read(twin).cpu_ops
    assert found.refusals == ()
    assert found.faults == ()


@needs_pairs
def test_crossing_bytes_are_what_the_twin_hands_over() -> None:
    twin = next(path for path in PAIRS if path.name.startswith("deeplab"))
    found = operator_check.check(twin.with_name(twin.name.replace("_edgetpu", "")))
    assert found.crossing_bytes == sum(port.size_bytes for port in compiled.read(twin).subgraphs[0].outputs)


def test_a_plain_int8_network_is_accepted() -> None:
    made = Made()
    fed = made.tensor((1, 16, 16, 3))
    first = made.conv(fed, 8, 3)
    second = made.conv(first, 8, 3)
    added = made.tensor((1, 16, 16, 8))
    made.op("ADD", [first, second], [added], version=2)
    found = result(made, [fed], [added])
    assert found.accepted
    assert found.cpu_ops == {}
    assert found.crossing_bytes == 0


@pytest.mark.parametrize(
    ("verdict", "status", "said"),
    [
        (one("EXP", (1, 8), (1, 8)), limits.NOT_SUPPORTED, "does not support"),
        (one("RESHAPE", (1, 8), (8,), ints(8), version=9), limits.VERSION, "version 9"),
        (one("MAX_POOL_2D", (1, 8, 8, 4), (1, 4, 4, 4), fusedActivationFunction=1), limits.UNSPECIFIED, "fused"),
        (
            one("CONV_2D", (1, 8, 8, 4), (1, 8, 8, 4), np.ones((4, 1, 1, 4), np.int8), **{"strideH": 1, "strideW": 1},
                dilationHFactor=1, dilationWFactor=2),
            limits.UNSPECIFIED, "1 x 2",
        ),
        (one("SOFTMAX", (1, 20000), (1, 20000)), limits.UNSPECIFIED, "20000 values; the limit is 16000"),
        (one("SOFTMAX", (1, 7, 91), (1, 7, 91)), limits.UNSPECIFIED, "not one-dimensional"),
        (one("ADD", (2, 8, 8, 4), (2, 8, 8, 4), np.ones((1,), np.int8)), limits.RANK, "2x8x8x4"),
        (
            one("CONCATENATION", (1, 4, 4, 4), (1, 4, 4, 8), np.ones((1, 4, 4, 4), np.int8)),
            limits.UNSPECIFIED, "all zeros",
        ),
        (
            one("CONCATENATION", (1, 4, 4, 4), (1, 4, 4, 12), *[np.zeros((1, 4, 4, 4), np.int8)] * 2),
            limits.UNSPECIFIED, "only two inputs",
        ),
        (one("MEAN", (1, 8, 8, 6), (1, 8, 8, 1), ints(3)), limits.UNSPECIFIED, "6 channels"),
        (one("MEAN", (1, 8, 8, 8), (8, 8, 8), ints(0)), limits.UNSPECIFIED, "batch"),
        (one("REDUCE_MAX", (1, 8, 8, 8), (8, 8, 8), ints(0)), limits.UNSPECIFIED, "batch"),
        (one("PAD", (1, 8, 8, 4), (2, 8, 8, 4), ints([0, 1], [0, 0], [0, 0], [0, 0])), limits.RANK, "2x8x8x4"),
        (one("RESIZE_BILINEAR", (1, 4, 4, 8), (1, 64, 64, 8), ints(64, 64)), limits.UNSPECIFIED, "scales by 16"),
        (one("RESIZE_BILINEAR", (1, 256, 256, 32), (1, 512, 512, 32), ints(512, 512)), limits.UNSPECIFIED, "8388608"),
        (one("STRIDED_SLICE", (1, 8, 8, 4), (1, 4, 8, 4), ints(0, 0, 0, 0), ints(1, 8, 8, 4), ints(1, 2, 1, 1)),
         limits.UNSPECIFIED, "1x2x1x1"),
        (one("FULLY_CONNECTED", (3, 8), (3, 4), np.ones((4, 8), np.int8)), limits.UNSPECIFIED, "not one-dimensional"),
        (
            one("FULLY_CONNECTED", (1, 8), (1, 4), np.ones((4, 8), np.int8), weightsFormat=1),
            limits.UNSPECIFIED, "shuffled",
        ),
        (one("PRELU", (1, 8, 8, 4), (1, 8, 8, 4), np.ones((8, 8, 4), np.int8)), limits.UNSPECIFIED, "alpha"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)  # fmt: skip
def test_a_broken_limit_is_named(verdict: operator_check.OpCheck, status: str, said: str) -> None:
    assert verdict.status == status
    assert said in verdict.reason
    assert not verdict.on_tpu


@pytest.mark.parametrize(
    "verdict",
    [
        one("MEAN", (1, 7, 7, 6), (1, 6), ints(1, 2), version=2),
        one("PAD", (1, 8, 8, 4), (1, 10, 10, 4), ints([0, 0], [1, 1], [1, 1], [0, 0]), version=2),
        one("CONCATENATION", (1, 4, 4, 4), (1, 4, 4, 8), np.zeros((1, 4, 4, 4), np.int8), version=2),
        one("RESIZE_BILINEAR", (1, 16, 16, 8), (1, 64, 64, 8), ints(64, 64), version=3),
        one("SOFTMAX", (1, 1000), (1, 1000), version=2),
        one("STRIDED_SLICE", (1, 8, 8, 4), (1, 4, 8, 4), ints(0, 0, 0, 0), ints(1, 4, 8, 4), ints(1, 1, 1, 1)),
    ],
    ids=lambda verdict: verdict.op,
)
def test_within_the_limits(verdict: operator_check.OpCheck) -> None:
    assert verdict.on_tpu, verdict.reason


def test_everything_behind_the_first_unsupported_operator_stays_on_the_cpu() -> None:
    made = Made()
    fed = made.tensor((1, 16, 16, 3))
    first = made.conv(fed, 8, 3)
    odd = made.tensor((1, 16, 16, 8))
    made.op("EXP", [first], [odd])
    last = made.conv(odd, 4)
    found = result(made, [fed], [last])
    assert [op.status for op in found.ops] == [limits.MAPPED, limits.NOT_SUPPORTED, limits.SECOND_SUBGRAPH]
    assert found.cpu_ops == {"CONV_2D": 1, "EXP": 1}
    assert found.ops[2].macs == 16 * 16 * 4 * 8
    assert found.crossing_bytes == 16 * 16 * 8


def test_a_branch_beside_the_unsupported_operator_stays_on_the_chip() -> None:
    made = Made()
    fed = made.tensor((1, 16, 16, 4))
    first = made.conv(fed, 8)
    odd = made.tensor((1, 16, 16, 8))
    made.op("EXP", [first], [odd])
    beside = made.conv(first, 8)
    assert [op.on_tpu for op in result(made, [fed], [odd, beside]).ops] == [True, False, True]


def test_a_float_input_is_quantised_on_the_cpu_and_the_rest_is_mapped() -> None:
    made = Made()
    fed = made.tensor((1, 8, 8, 4), dtype=np.float32, scale=None)
    inner = made.tensor((1, 8, 8, 4))
    made.op("QUANTIZE", [fed], [inner])
    out = made.conv(inner, 8)
    back = made.tensor((1, 8, 8, 8), dtype=np.float32, scale=None)
    made.op("DEQUANTIZE", [out], [back], version=2)
    found = result(made, [fed], [back])
    assert [op.on_tpu for op in found.ops] == [False, True, False]
    assert found.cpu_ops == {"DEQUANTIZE": 1, "QUANTIZE": 1}


def test_refusals() -> None:
    made = Made()
    fed, out = (made.tensor((1, 8), dtype=np.float32, scale=None) for _ in range(2))
    made.op("RELU", [fed], [out])
    assert "Model not quantized" in result(made, [fed], [out]).refusals[0]
    made = Made()
    fed = made.tensor((1, 8, 8, 4))
    out = made.conv(fed, 8)
    made.graph.tensors[fed].shapeSignature = np.array([-1, 8, 8, 4], np.int32)
    assert "static shape" in result(made, [fed], [out]).refusals[0]
    made = Made()
    fed = made.tensor((1, 8, 8, 4))
    out = made.conv(fed, 8)
    made.graph.tensors[out].shapeSignature = np.array([-1, 8, 8, 8], np.int32)
    assert not result(made, [fed], [out]).refusals, "the input is static, so what follows is"
    made = Made()
    fed, out = made.tensor((1, 8)), made.tensor((1, 8))
    made.op("EXP", [fed], [out])
    assert result(made, [fed], [out]).refusals == ("no operator can run on the Edge TPU",)


def a_conv() -> tuple[Made, int, Any, Any, int]:
    """A network of one convolution: its input, its weights' and bias's tensor, its output."""
    made = Made()
    fed = made.tensor((1, 8, 8, 4))
    out = made.conv(fed, 8)
    return made, fed, made.graph.tensors[out - 2], made.graph.tensors[out - 1], out


@pytest.mark.parametrize(("scale", "said"), [(np.nan, "not a number"), (np.inf, "not a number"), (0, "above zero")])
def test_a_scale_that_means_nothing_is_a_fault(scale: float, said: str) -> None:
    made, fed, weights, _, out = a_conv()
    weights.quantization.scale[2] = scale
    assert said in result(made, [fed], [out]).faults[0]


def test_missing_and_misplaced_scales_are_faults() -> None:
    made, fed, weights, _, out = a_conv()
    weights.quantization.quantizedDimension = 3
    found = result(made, [fed], [out])
    assert "no axis" in found.faults[0]
    assert not found.accepted
    weights.quantization = None
    assert "without a scale" in result(made, [fed], [out]).faults[0]


def test_a_saturated_bias_is_a_fault() -> None:
    made, fed, _, bias, out = a_conv()
    values = np.zeros(8, np.int32)
    values[3] = -(2**31)
    made.model.buffers[bias.buffer].data = values.view(np.uint8)
    assert "saturated at 2147483648" in result(made, [fed], [out]).faults[0]


def test_a_matrix_product_with_a_scale_a_channel_is_a_fault() -> None:
    made = Made()
    fed, out = made.tensor((1, 8)), made.tensor((1, 4))
    weights = made.tensor((8, 4), scale=[0.1, 0.2, 0.3, 0.4], axis=1, data=1)
    made.op("BATCH_MATMUL", [fed, weights], [out], version=2)
    found = result(made, [fed], [out])
    assert "use FULLY_CONNECTED" in found.faults[0]
    assert found.ops[0].status == limits.NOT_SUPPORTED


def test_a_dense_layer_with_a_scale_a_channel_is_doubted_and_no_more() -> None:
    made = Made()
    fed, out = made.tensor((1, 8)), made.tensor((1, 4))
    made.op("FULLY_CONNECTED", [fed, made.tensor((4, 8), scale=[0.1, 0.2, 0.3, 0.4], data=1)], [out], version=6)
    found = result(made, [fed], [out])
    assert "per-channel scales" in found.doubts[0]
    assert found.accepted


def test_weights_that_are_computed_are_not_taken() -> None:
    made = Made()
    fed, weights, out = made.tensor((1, 8)), made.tensor((4, 8)), made.tensor((1, 4))
    made.op("FULLY_CONNECTED", [fed, weights], [out])
    assert result(made, [fed, weights], [out]).ops[0].status == limits.NOT_CONSTANT


def test_compiled_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a_edgetpu.tflite"
    path.write_bytes(compiled_file())
    with pytest.raises(ModelError, match=r"already compiled"):
        operator_check.check(path)


def test_a_thousand_damaged_files() -> None:
    made = Made()
    fed = made.tensor((1, 8, 8, 4))
    first = made.conv(fed, 8, 3)
    out = made.tensor((1, 1, 1, 8))
    made.op(
        "MEAN", [first, made.tensor((2,), dtype=np.int32, scale=None, data=[1, 2])], [out], version=2, keepDims=True
    )
    data, refused = made.done([fed], [out]), 0
    for bad in damage(data, 3000, seed=5):
        try:
            operator_check.check_model(checked.read(bad, "bad.tflite"), "bad.tflite")
        except GraphcutError as error:
            refused += one_line(error)
    assert refused > 1000
