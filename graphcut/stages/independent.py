"""A second way to the unsplit int8 model, to hold the chain against.

1. The unsplit model of a split is its segments joined, so what went wrong in a segment is in it too. Here the author's
   model goes through the converter in one piece: no cut, no seam, no part of a layer, no file in common.
2. It is quantised with the ranges of the segments, tensor by tensor where both know a name, and where biases of a
   segment were refined, by the same steps: the comparison is of what is computed, and two calibrations never agree to
   the last bit.
3. Both run on all samples. Where the same bytes come out, the cuts changed nothing. Where they do not (an operator was
   fused differently, a layer was split), the distance is said, and it is wrong where it is larger than what int8
   itself costs: than the noise of the chain against float.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from graphcut.graph.extract import Extraction
from graphcut.graph.model import Model
from graphcut.progress import Report, silent
from graphcut.quant.kept import Kept
from graphcut.records import Array, Independent, Plan
from graphcut.runtime import litert
from graphcut.stages.convert import convert
from graphcut.stages.measure import sqnr_db
from graphcut.stages.planning.segments import segments
from graphcut.stages.sizes import Sizes
from graphcut.workers.pool import Pool

Int8 = npt.NDArray[np.int8]


def uncut(model: Model, chosen: Plan, sizes: Sizes) -> Plan:
    """The plan of one segment that holds the whole model."""
    return replace(chosen, candidates=(), segments=segments(model.graph, [], sizes), certificate="")


def convert_whole(
    model: Model,
    whole: Plan,
    values: Mapping[str, Array],
    logits: Mapping[str, str],
    kept: Sequence[Kept],
    pool: Pool,
    folder: Path,
    *,
    per_channel: bool,
    report: Report = silent,
) -> Path:
    """Convert the whole model in one piece (statements 1 and 2); returns the int8 file.

    Args:
        model: as its author ordered it, no layer in parts.
        whole: from :func:`uncut`.
        values, logits: as in :func:`graphcut.stages.convert.convert`.
        kept: what the segments were quantised with.
        pool: the workers.
        folder: an empty one.
        per_channel: one weight scale an output channel.

    Raises:
        ConversionError: the converter cannot do it in one piece.
    """
    (only,) = whole.segments
    proto = Extraction(model).segment(only.inputs, only.outputs)
    (made,) = convert(
        model,
        whole,
        [proto],
        values,
        logits,
        pool,
        folder,
        per_channel=per_channel,
        kept=kept,
        report=report,
    ).segments
    return made.tflite_path


def compare(
    chain: Mapping[str, Sequence[Int8]],
    whole: Mapping[str, Sequence[Int8]],
    chain_scales: Mapping[str, tuple[float, int]],
    whole_scales: Mapping[str, tuple[float, int]],
) -> Independent:
    """Compare int8 outputs of the chain and of the independent whole on all samples (statement 3).

    Args:
        chain, whole: name of an output, or of what its final softmax reads -> int8 values by sample.
        chain_scales, whole_scales: the same names -> scale and zero point.
    """
    differing = elements = 0
    largest = 0
    worst = float("inf")
    same_scales = all(chain_scales[name] == whole_scales[name] for name in chain)
    for name, values in chain.items():
        ours, theirs = np.concatenate(values), np.concatenate(whole[name])
        steps = np.abs(ours.astype(np.int32) - theirs.astype(np.int32))
        differing += int(np.count_nonzero(steps))
        elements += steps.size
        largest = max(largest, int(steps.max(initial=0)))
        wanted = litert.dequantise(theirs, *whole_scales[name])
        worst = min(worst, sqnr_db(wanted, litert.dequantise(ours, *chain_scales[name])))
    return Independent(
        exact=differing == 0 and same_scales,
        differing_share=differing / max(elements, 1),
        largest_step=largest,
        sqnr_db=worst,
    )
