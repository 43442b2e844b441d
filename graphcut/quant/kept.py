"""What an int8 file was quantised with, for those who correct it later or quantise another file the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphcut.quant.ranges import Observed
from graphcut.quant.refine import Shifts


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Ranges by activation name, and what was added to int32 biases by the activation their operator makes."""

    ranges: Mapping[str, Observed]
    shifts: Shifts
