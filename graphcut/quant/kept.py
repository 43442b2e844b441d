"""What an int8 file was quantised with, kept for another worker: an ``.npz`` without pickles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphcut.quant.ranges import Observed
from graphcut.quant.refine import Shifts


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Ranges by activation name, and what refining took from int32 biases by the activation their operator makes."""

    ranges: Mapping[str, Observed]
    shifts: Shifts


def save(kept: Kept, path: Path) -> None:
    """Write it."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "names": np.array(list(kept.ranges), dtype=np.str_),
        "limits": np.array([(seen.minimum, seen.maximum) for seen in kept.ranges.values()], dtype=np.float64),
        "shifted": np.array(list(kept.shifts), dtype=np.str_),
    }
    for index, seen in enumerate(kept.ranges.values()):
        arrays[f"mean{index}"] = seen.channel_mean
        if seen.rounded_mean is not None:
            arrays[f"rounded{index}"] = seen.rounded_mean
    arrays |= {f"shift{index}": shift for index, shift in enumerate(kept.shifts.values())}
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def load(path: Path) -> Kept:
    """Read what :func:`save` wrote."""
    with np.load(path, allow_pickle=False) as archive:
        ranges = {
            str(name): Observed(
                minimum=float(low),
                maximum=float(high),
                channel_mean=archive[f"mean{index}"],
                rounded_mean=archive.get(f"rounded{index}", None),
            )
            for index, (name, (low, high)) in enumerate(zip(archive["names"], archive["limits"], strict=True))
        }
        shifts = {str(name): archive[f"shift{index}"] for index, name in enumerate(archive["shifted"])}
    return Kept(ranges=ranges, shifts=shifts)
