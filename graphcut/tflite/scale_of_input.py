"""Operators whose int8 output has the scale of their input, by ONNX's names and by TFLite's.

ai-edge-quantizer calls this ``SAME_AS_INPUT_SCALE``. A seam after such an operator has the range of the operator's
input: the prediction of sizes, the ranges of seams and the converted files have to agree about that.
"""

from __future__ import annotations

ONNX_OPERATORS = frozenset(
    {"MaxPool", "AveragePool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Resize", "Split", "Slice"}
)
"""The scale is that of the first input."""

TFLITE_OPERATORS = {
    **dict.fromkeys(("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "MAX_POOL_2D", "AVERAGE_POOL_2D"), 0),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SLICE", "STRIDED_SLICE", "SPLIT_V"), 0),
    "SPLIT": 1,
}
"""Operator -> position of the input."""
