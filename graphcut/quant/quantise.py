"""Quantise float TFLite to int8 TFLite with ai-edge-quantizer and given ranges.

Weights are symmetric int8, with per-channel or per-tensor scales; activations asymmetric int8, with per-tensor scales;
biases int32. FULLY_CONNECTED always has one scale: parsers before 2024, among them that of the Edge TPU compiler,
support no other form, and it costs nothing (23.8 dB either way on a trained MobileNetV2). BATCH_MATMUL by a constant
has
one too: its kernels read the first scale only (0 dB with per-channel scales). Inputs and outputs of the file are int8.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_quantizer import qtyping, quantizer, recipe_manager
from ai_edge_quantizer.algorithms.uniform_quantize.uniform_quantize_tensor import tensor_zp_scale_from_min_max

from graphcut.quant.ranges import Observed

_EVERYTHING = qtyping.TFLOperationName.ALL_SUPPORTED


def quantise(
    float_model: bytes,
    ranges: Mapping[str, Observed],
    ranks: Mapping[str, int],
    *,
    per_channel: bool,
    in_float: Sequence[str] = (),
) -> bytes:
    """The int8 file of a float file.

    Args:
        float_model: the float file's bytes.
        ranges: activation name -> its range; every activation of the file must be there.
        ranks: activation name -> rank of the tensor.
        per_channel: one weight scale per output channel.
        in_float: activations whose operators stay in float.

    Raises:
        ValueError, RuntimeError: an operator or tensor that the quantiser refuses.
    """
    granularity = qtyping.QuantGranularity.CHANNELWISE if per_channel else qtyping.QuantGranularity.TENSORWISE
    recipe = recipe_manager.RecipeManager()
    recipe.add_static_config(
        regex=".*",
        operation_name=_EVERYTHING,
        activation_num_bits=8,
        weight_num_bits=8,
        weight_granularity=granularity,
    )
    for one_scale in (qtyping.TFLOperationName.FULLY_CONNECTED, qtyping.TFLOperationName.BATCH_MATMUL):
        recipe.add_static_config(
            regex=".*",
            operation_name=one_scale,
            activation_num_bits=8,
            weight_num_bits=8,
            weight_granularity=qtyping.QuantGranularity.TENSORWISE,
        )
    for name in in_float:
        recipe.add_quantization_config(
            regex=f"^{re.escape(name)};", operation_name=_EVERYTHING, algorithm_key="no_quantize"
        )
    tool = quantizer.Quantizer(bytearray(float_model), recipe.get_quantization_recipe())
    statistics: dict[str, Any] = {
        name: {
            "min": np.full((1,) * ranks[name], seen.minimum, np.float32),
            "max": np.full((1,) * ranks[name], seen.maximum, np.float32),
        }
        for name, seen in ranges.items()
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*preserve_all_tensors.*")
        result = tool.quantize(statistics).quantized_model
    if result is None:
        raise RuntimeError("the quantiser returned nothing")
    return bytes(result)


def scale_of_range(minimum: float, maximum: float) -> tuple[float, int]:
    """Scale and zero point that the quantiser gives an activation of that range, to the last bit."""
    low, high = np.array([minimum], np.float32), np.array([maximum], np.float32)
    zero_point, scale = tensor_zp_scale_from_min_max(low, high, 8, False, qtyping.QuantGranularity.TENSORWISE)
    return float(scale[0]), int(zero_point[0])
