"""A second way to the unsplit int8 model, to compare the chain with.

1. The unsplit model of a split consists of its joined segments, so an error in a segment is in it too. Here the
   author's
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

from graphcut.cache_folder import EarlierResults
from graphcut.conversion.convert import convert
from graphcut.graph.extraction import Extraction
from graphcut.graph.model import Model
from graphcut.planning.segments import segments
from graphcut.prediction.sizes import Sizes
from graphcut.progress import Report, silent
from graphcut.quant.kept import Kept
from graphcut.records import Array, Plan
from graphcut.workers.pool import Pool

Int8 = npt.NDArray[np.int8]


def uncut(model: Model, chosen: Plan, sizes: Sizes) -> Plan:
    """The plan of one segment that holds the whole model."""
    return replace(chosen, candidates=(), segments=segments(model.graph, [], sizes), certificate="")


def convert_whole(
    model: Model,
    whole: Plan,
    values: Mapping[str, Array],
    logits: Mapping[str, Array],
    kept: Sequence[Kept],
    pool: Pool,
    folder: Path,
    *,
    samples: int,
    per_channel: bool,
    results: EarlierResults | None = None,
    report: Report = silent,
) -> Path:
    """Convert the whole model in one piece (statements 1 and 2); returns the int8 file.

    Args:
        model: as its author ordered it, no layer in parts.
        whole: from :func:`uncut`.
        values, logits, samples, results: as in :func:`graphcut.conversion.convert.convert`.
        kept: what the segments were quantised with.
        pool: the workers.
        folder: an empty one.
        per_channel: one weight scale per output channel.

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
        samples=samples,
        per_channel=per_channel,
        kept=kept,
        results=results,
        report=report,
    ).segments
    return made.tflite_path
