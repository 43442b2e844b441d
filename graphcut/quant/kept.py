"""What an int8 file was quantised with, for later corrections and for quantising another file the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from graphcut.quant.fit import FittedOperator
from graphcut.quant.ranges import Observed
from graphcut.quant.refine import Shifts


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What an int8 file was quantised with.

    Attributes:
        ranges: activation name -> what was observed.
        shifts: what was added to int32 biases, by the activation their operator makes.
        fits: what was fitted, by the activation that the operator makes; shifts come after it.
        float_path: the float file.
    """

    ranges: Mapping[str, Observed]
    shifts: Shifts
    float_path: Path
    fits: Mapping[str, FittedOperator] = field(default_factory=dict)
