"""What no segment may pass, by any of its costs."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of every segment; None for none. The costs are those of graphcut.stages.costs.

    Attributes:
        tflite_bytes, compiled_bytes, parameter_bytes: of a segment's files and on the chip; compiled as expected.
        off_chip_bytes: expected to stream at every inference.
        macs, activation_bytes: multiplications; inputs and outputs of the largest operator.
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

    def given(self) -> dict[str, int]:
        """The limits there are, by name."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}
