"""All passes, in the order in which they run."""

from __future__ import annotations

from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.clean import DROP_NOTHING, SWEEP
from graphcut.graph.passes.convolution import FOLD_ARITHMETIC, FOLD_BATCH_NORM, SPLIT_BATCH_NORM
from graphcut.graph.passes.dense import GEMM_BIAS, MATMUL_TO_GEMM
from graphcut.graph.passes.layout import NCHW_INPUTS, NCHW_OUTPUTS
from graphcut.graph.passes.reshape import FLATTEN_TO_DENSE, MERGE_RESHAPES

PASSES: tuple[Pass, ...] = (
    DROP_NOTHING,
    SWEEP,
    NCHW_INPUTS,
    NCHW_OUTPUTS,
    FOLD_BATCH_NORM,
    FOLD_ARITHMETIC,
    SPLIT_BATCH_NORM,
    MERGE_RESHAPES,
    FLATTEN_TO_DENSE,
    MATMUL_TO_GEMM,
    GEMM_BIAS,
)
