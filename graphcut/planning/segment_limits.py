"""Limits of every segment, on any of its costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from graphcut.errors import UsageError
from graphcut.units import parse_bytes

NAMES = {
    "tflite": "tflite_bytes",
    "compiled": "compiled_bytes",
    "parameters": "parameter_bytes",
    "off-chip": "off_chip_bytes",
    "activations": "activation_bytes",
    "seam": "seam_bytes",
    "macs": "macs",
    "latency": "latency_us",
}
"""Name of a limit for users -> the field of :class:`Limits`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of every segment; None for none. The costs are those of graphcut.prediction.segment_costs.

    Attributes:
        tflite_bytes: of the int8 file.
        compiled_bytes: of the compiled file, as expected.
        parameter_bytes: of weights and biases on the Edge TPU.
        off_chip_bytes: expected to be streamed at every inference.
        macs: multiplications with a weight.
        activation_bytes: inputs and outputs of the largest operator.
        seam_bytes: handed over at a cut.
        latency_us: microseconds of one inference.
    """

    tflite_bytes: int | None = None
    compiled_bytes: int | None = None
    parameter_bytes: int | None = None
    off_chip_bytes: int | None = None
    macs: int | None = None
    activation_bytes: int | None = None
    seam_bytes: int | None = None
    latency_us: int | None = None

    def stricter(self, other: Limits) -> Limits:
        """The lower one of every limit."""
        both = [self.given(), other.given()]
        return Limits(**{name: min(each[name] for each in both if name in each) for name in both[0] | both[1]})

    def given(self) -> dict[str, int]:
        """The limits there are, by name."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def parse_limits(given: Mapping[str, str | float]) -> Limits:
    """Read limits as a user writes them.

    Args:
        given: name (NAMES) -> a size ("7MiB", bytes), a number of multiplications, or milliseconds ("latency").

    Raises:
        UsageError: a name is unknown, or a value is not a size or number.

    >>> parse_limits({"compiled": "7MiB", "latency": 12.5}).given()
    {'compiled_bytes': 7340032, 'latency_us': 12500}
    """
    values: dict[str, float] = {}
    for name, value in given.items():
        if name not in NAMES:
            raise UsageError(f"there is no limit {name!r}", f"choose from {', '.join(NAMES)}")
        field = NAMES[name]
        if field.endswith("_bytes") and str(value).strip() != "0":
            values[field] = parse_bytes(str(value))
        else:
            # Rounded, because 1000 times the number in a message must not be less than it.
            values[field] = round(_number(name, value) * (1000 if name == "latency" else 1), 3)
    return Limits(**{field: math.floor(value) for field, value in values.items()})


def _number(name: str, value: str | float) -> float:
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not 0 <= found < 2**60:
        raise UsageError(
            f"the limit {name}={value} is not a positive number", "write one, such as macs=2e9 or latency=12.5"
        )
    return found
