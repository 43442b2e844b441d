"""All passes, in the order in which they run."""

from __future__ import annotations

from graphcut.graph.passes.affine import AFFINE_TO_DEPTHWISE
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.channels import PICKS_TO_CONVS, SPLIT_CONVS
from graphcut.graph.passes.clean import DROP_NOTHING, SWEEP
from graphcut.graph.passes.convolution import FOLD_ARITHMETIC, FOLD_BATCH_NORM, SPLIT_BATCH_NORM
from graphcut.graph.passes.dense import GEMM_BIAS, MATMUL_TO_GEMM
from graphcut.graph.passes.head import FLATTEN_EARLY
from graphcut.graph.passes.layout import MERGE_TRANSPOSES, PLAIN_TRANSPOSES, TURN_ISLANDS
from graphcut.graph.passes.pooling import GLOBAL_POOLS, PADDED_AVERAGE_POOLS, PADDED_MAX_POOLS, PADDING_INTO_CONV
from graphcut.graph.passes.reshape import FLATTEN_TO_DENSE, MERGE_RESHAPES
from graphcut.graph.passes.signs import ABS_TO_RELUS
from graphcut.graph.passes.softmax import PLAIN_SOFTMAX
from graphcut.graph.passes.window import EXPLICIT_PADDING

PASSES: tuple[Pass, ...] = (
    DROP_NOTHING,
    SWEEP,
    MERGE_TRANSPOSES,
    TURN_ISLANDS,
    EXPLICIT_PADDING,
    FOLD_BATCH_NORM,
    FOLD_ARITHMETIC,
    AFFINE_TO_DEPTHWISE,
    SPLIT_BATCH_NORM,
    PADDING_INTO_CONV,
    GLOBAL_POOLS,
    PADDED_MAX_POOLS,
    PADDED_AVERAGE_POOLS,
    SPLIT_CONVS,
    PICKS_TO_CONVS,
    PLAIN_TRANSPOSES,
    MERGE_RESHAPES,
    FLATTEN_TO_DENSE,
    FLATTEN_EARLY,
    PLAIN_SOFTMAX,
    MATMUL_TO_GEMM,
    GEMM_BIAS,
    ABS_TO_RELUS,
)
