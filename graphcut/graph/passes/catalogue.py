"""All passes, in the order in which they run."""

from __future__ import annotations

from graphcut.graph.passes.activations import (
    ABS_TO_RELUS,
    CLIPS,
    HARD_SIGMOIDS,
    LEAKY_RELUS,
    MISH,
    NEG_TO_CONV,
    PRELUS,
    SOFTPLUS,
)
from graphcut.graph.passes.affine import AFFINE_TO_DEPTHWISE
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.blocks import DEPTH_TO_SPACE, REPEAT_TO_RESIZE, SPACE_TO_DEPTH
from graphcut.graph.passes.centre import CENTRE_FIRST
from graphcut.graph.passes.channels import PICKS_TO_CONVS, SPLIT_CONVS
from graphcut.graph.passes.clean import DROP_NOTHING, SWEEP
from graphcut.graph.passes.convolution import FOLD_ARITHMETIC, FOLD_BATCH_NORM, FOLD_DEPTHWISE, SPLIT_BATCH_NORM
from graphcut.graph.passes.dense import FACTOR_INTO_DENSE, FLATTEN_CHANNELS_LAST, GEMM_BIAS, MATMUL_TO_GEMM
from graphcut.graph.passes.expands import DROP_EXPANDS, TILES_TO_CONCATS
from graphcut.graph.passes.fold_forward import FOLD_FORWARD
from graphcut.graph.passes.gates import DENSE_GATES
from graphcut.graph.passes.hardswish import HARD_SWISH, SCALED_RELU6, SPELL_HARD_SWISH
from graphcut.graph.passes.head import FLATTEN_EARLY
from graphcut.graph.passes.lines import LINES_TO_MAPS
from graphcut.graph.passes.means import LONG_MEANS
from graphcut.graph.passes.nearest import NEAREST
from graphcut.graph.passes.norms import NORMS
from graphcut.graph.passes.pooling import (
    GLOBAL_MAX_POOLS,
    GLOBAL_POOLS,
    PADDED_AVERAGE_POOLS,
    PADDED_MAX_POOLS,
    PADDING_INTO_CONV,
    POOLS_OF_PRODUCTS,
)
from graphcut.graph.passes.reshape import FLATTEN_TO_DENSE, MERGE_RESHAPES
from graphcut.graph.passes.round_trips import DROP_ROUND_TRIPS
from graphcut.graph.passes.rows import ROWS_TO_CONVS
from graphcut.graph.passes.rows_last import TURN_ROWS_EARLY
from graphcut.graph.passes.softmax import PLAIN_SOFTMAX, TURNED_SOFTMAX
from graphcut.graph.passes.spelled_out import SPELL_OUT
from graphcut.graph.passes.transposes import MERGE_TRANSPOSES, PLAIN_TRANSPOSES, TURN_ISLANDS
from graphcut.graph.passes.window import EXPLICIT_PADDING

PASSES: tuple[Pass, ...] = (
    # Operators without effect, and one form for each operation.
    DROP_NOTHING,
    SWEEP,
    SPELL_OUT,
    DROP_EXPANDS,
    DROP_ROUND_TRIPS,
    ROWS_TO_CONVS,
    MERGE_TRANSPOSES,
    TURN_ISLANDS,
    CENTRE_FIRST,
    LINES_TO_MAPS,
    NORMS,
    LONG_MEANS,
    EXPLICIT_PADDING,
    # Operators that become part of a convolution.
    FOLD_BATCH_NORM,
    FOLD_ARITHMETIC,
    AFFINE_TO_DEPTHWISE,
    SPLIT_BATCH_NORM,
    PADDING_INTO_CONV,
    # Operators that only rearrange channels and pixels.
    SPACE_TO_DEPTH,
    DEPTH_TO_SPACE,
    REPEAT_TO_RESIZE,
    NEAREST,
    TILES_TO_CONCATS,
    SPLIT_CONVS,
    PICKS_TO_CONVS,
    # Pools in forms that TFLite supports.
    GLOBAL_POOLS,
    GLOBAL_MAX_POOLS,
    PADDED_MAX_POOLS,
    PADDED_AVERAGE_POOLS,
    # Activations in int8.
    HARD_SWISH,
    SCALED_RELU6,
    MISH,
    SOFTPLUS,
    LEAKY_RELUS,
    PRELUS,
    HARD_SIGMOIDS,
    CLIPS,
    ABS_TO_RELUS,
    NEG_TO_CONV,
    FOLD_DEPTHWISE,
    # Reshapes and dense layers.
    TURN_ROWS_EARLY,
    TURNED_SOFTMAX,
    PLAIN_TRANSPOSES,
    MERGE_RESHAPES,
    FLATTEN_TO_DENSE,
    PLAIN_SOFTMAX,
    MATMUL_TO_GEMM,
    GEMM_BIAS,
    FACTOR_INTO_DENSE,
    DENSE_GATES,
    FLATTEN_EARLY,
    FLATTEN_CHANNELS_LAST,
    POOLS_OF_PRODUCTS,
    # Operators that the device does not support.
    SPELL_HARD_SWISH,
    # What is left before a convolution.
    FOLD_FORWARD,
)
