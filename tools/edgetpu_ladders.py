"""The ladder part of docs/explanation/numbers.md: published sizes, streaming and times of two families of networks.

    python -m tools.edgetpu_ladders ../shared docs/explanation/numbers.md

Without the second argument, the section is printed. With it, the section replaces the text between its two markers in
the file, or is appended.

The rows of ``edgetpu_ladders.json`` are split by network: a network whose CRC-32 (of "conv:F" or "dense:I:N:H") is even
belongs to the *fitting* half, from which the constants of graphcut.edgetpu.computing and graphcut.prediction.latency
were fitted. The others belong to the *test* half. Only that half is shown here. All rows of a network are in one half.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, pairwise, permutations, product
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from graphcut.edgetpu.caching import Caching, cache, room_beside
from graphcut.edgetpu.computing import work
from graphcut.edgetpu.layers import CONV, DENSE, Layer, byte_activations
from graphcut.edgetpu.packing import Packed, pack
from graphcut.edgetpu.tile_memory import reserved
from graphcut.prediction.device_profiles import DEVICES
from graphcut.units import KIB, MIB
from tools.edgetpu_numbers import table
from tools.page import run

NAME = "edgetpu_ladders.py"
PCIE = DEVICES["coral-pcie"]
NEAR = 0.02
"""Rows whose parameters lie so near to the room do not count for the verdict."""


class Row(NamedTuple):
    """One published row.

    Attributes:
        family: "conv" or "dense".
        network: F, or I, N and H.
        segments, batch, profiling: as published.
        on_chip_mib, off_chip_mib: by segment.
        ms: of one inference.
    """

    family: str
    network: tuple[int, ...]
    segments: int
    batch: int
    profiling: bool
    on_chip_mib: tuple[float, ...]
    off_chip_mib: tuple[float, ...]
    ms: float

    @property
    def test(self) -> bool:
        """Whether it belongs to the half that nothing is fitted to."""
        return crc32(":".join(map(str, (self.family, *self.network))).encode()) % 2 == 1

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of the whole network."""
        return conv_layers(*self.network) if self.family == "conv" else dense_layers(*self.network)


def rows(shared: Path) -> Iterator[Row]:
    """Yield all published rows."""
    listed = json.loads((shared / "reference" / "edgetpu_ladders.json").read_text())
    for family, wide in (("conv", 1), ("dense", 3)):
        for row in listed[family]["rows"]:
            segments, batch, profiling, on_chip, off_chip, ms = row[wide:]
            yield Row(family, tuple(row[:wide]), segments, batch, profiling, tuple(on_chip), tuple(off_chip), ms)


def conv_layers(filters: int) -> tuple[Layer, ...]:
    """Return five 3x3 convolutions with F filters on a 64x64x3 input; biases are zero, scales per channel."""
    found = []
    for number, (fed, made) in enumerate(pairwise((3, *(filters,) * 5))):
        ends = ((1, 64, 64, fed),), ((1, 64, 64, made),)
        weights = (made, 3, 3, fed)
        found.append(
            Layer(
                name=f"conv{number + 1}",
                op=CONV,
                inputs=ends[0],
                outputs=ends[1],
                activation_bytes=byte_activations(*ends[0], *ends[1]),
                weights=weights,
                taps=9,
                words=2,
                window=(3, 3),
            )
        )
    return tuple(found)


def dense_layers(inputs: int, width: int, hidden: int) -> tuple[Layer, ...]:
    """Return a chain of dense layers to 10 outputs; one scale per layer, biases zero.

    With 64 inputs there are ``hidden`` layers of N to N. With 6912 inputs the first layer counts as one of them, which
    alone gives the published sizes.
    """
    between = hidden if inputs == 64 else max(hidden - 1, 0)
    found = []
    for number, (fed, made) in enumerate(pairwise((inputs, *(width,) * (between + 1), 10))):
        ends = ((1, fed),), ((1, made),)
        found.append(
            Layer(
                name=f"dense{number + 1}",
                op=DENSE,
                inputs=ends[0],
                outputs=ends[1],
                activation_bytes=fed + made,
                weights=(made, fed),
                taps=1,
            )
        )
    return tuple(found)


def printed(size: int) -> float:
    """Return bytes in MiB as the compiler prints them: with two decimals, below one MiB of KiB."""
    if size < KIB:
        return size / MIB
    return round(size / KIB, 2) / KIB if size < MIB else round(size / MIB, 2)


class Forecast(NamedTuple):
    """The prediction for a row: sizes by segment, and the time."""

    parts: tuple[Caching, ...]
    room_mib: tuple[float, ...]
    ms: float


def predict(layers: Sequence[Layer], cuts: Sequence[int] = ()) -> Forecast:
    """Predict layers that are cut after these."""
    packed = pack(layers).layers
    bounds = [0, *cuts, len(packed)]
    parts, rooms = [], []
    for start, stop in pairwise(bounds):
        run = packed[start:stop]
        fed = byte_activations(*run[0].layer.inputs)
        parts.append(cache(run, input_bytes=fed))
        rooms.append(room_beside(max([fed, *reserved([each.layer for each in run])])) / MIB)
    ms = PCIE.latency_ms(
        host_in=float(byte_activations(*layers[0].inputs)),
        seam_in=0.0,
        work=float(sum(map(work, layers))),
        off_chip=float(sum(each.sent_bytes for each in parts)),
        seam_out=0.0,
        host_out=float(byte_activations(*layers[-1].outputs)),
    )
    return Forecast(tuple(parts), tuple(rooms), ms)


def agrees(row: Row, found: Forecast) -> bool:
    """Return whether on-chip and off-chip bytes of every segment equal the published ones, as printed."""
    own = [(printed(each.on_chip_bytes), printed(each.off_chip_bytes)) for each in found.parts]
    told = zip(row.on_chip_mib, row.off_chip_mib, strict=True)
    return all(
        abs(on - told_on) < 1e-9 and abs(off - told_off) < 1e-9
        for (on, off), (told_on, told_off) in zip(own, told, strict=True)
    )


def best(row: Row) -> Forecast | None:
    """Return the prediction for the cuts that explain the published sizes; None if no cuts do.

    A row does not say where the compiler cut, but on-chip and off-chip bytes together show it: a layer counts in the
    sum of its segment whether it is cached (64 rows) or streamed (rows of the file).
    """
    layers = row.layers
    packed = pack(layers).layers
    for cuts in combinations(range(1, len(layers)), row.segments - 1):
        bounds = [0, *cuts, len(layers)]
        runs = [packed[start:stop] for start, stop in pairwise(bounds)]
        told = zip(runs, row.on_chip_mib, row.off_chip_mib, strict=True)
        if all(_explained(run, on, off) for run, on, off in told):
            return predict(layers, cuts)
    return None


def _explained(run: Sequence[Packed], on_chip: float, off_chip: float) -> bool:
    """Return whether some choice of cached and streamed layers gives the published sizes."""
    for cached in product((True, False), repeat=len(run)):
        on = sum(each.on_chip_bytes for each, stays in zip(run, cached, strict=True) if stays)
        off = sum(each.parameter_bytes for each, stays in zip(run, cached, strict=True) if not stays)
        if abs(printed(on) - on_chip) < 1e-9 and abs(printed(off) - off_chip) < 1e-9:
            return True
    return False


def contradicted(found: Sequence[Row]) -> dict[tuple[str, tuple[int, ...]], tuple[float, ...]]:
    """Return the networks whose own rows (one segment, one image) differ by more than a tenth, with their times."""
    times: dict[tuple[str, tuple[int, ...]], list[float]] = defaultdict(list)
    for row in found:
        if row.segments == row.batch == 1:
            times[row.family, row.network].append(row.ms)
    return {key: tuple(sorted(ms)) for key, ms in times.items() if max(ms) > 1.1 * min(ms)}


def size_table(found: Sequence[Row]) -> str:
    """Return the table of sizes and streaming."""
    lines, odd = [], []
    for family in ("conv", "dense"):
        own = [row for row in found if row.family == family]
        known = {row: best(row) for row in own}
        odd += sorted({(row.family, row.network) for row, each in known.items() if each is None})
        judged = [(row, each) for row, each in known.items() if each is not None]
        near = [pair for pair in judged if _near(pair[1])]
        right = sum(_streams(row) == any(each.streamed for each in part.parts) for row, part in judged)
        right_near = sum(_streams(row) == any(each.streamed for each in part.parts) for row, part in near)
        streaming = [(row, each) for row, each in judged if _streams(row)]
        lines.append(
            (
                family,
                len(own),
                f"{len(judged)} of {len(known)}",
                f"{sum(agrees(*pair) for pair in judged)}",
                f"{right - right_near} of {len(judged) - len(near)}",
                f"{right_near} of {len(near)}",
                f"{sum(agrees(*pair) for pair in streaming)} of {len(streaming)}",
            )
        )
    headers = (
        *("family", "rows", "different rows explained", "on-chip and off-chip bytes as printed", "does it stream"),
        *(f"within {NEAR:.0%} of the limit", "which layers stream"),
    )
    said = "Not explained by the description of the network: " + (
        "; ".join(f"{family} {' x '.join(map(str, network))}" for family, network in odd) if odd else "none"
    )
    return f"{table(headers, lines)}\n\n{said}."


def _streams(row: Row) -> bool:
    return any(row.off_chip_mib)


def _near(found: Forecast) -> bool:
    """Return whether the parameters of any segment are close to its room."""
    return any(
        abs(each.on_chip_bytes / MIB - room) < NEAR * room and not each.streamed
        for each, room in zip(found.parts, found.room_mib, strict=True)
    )


def time_table(found: Sequence[Row]) -> str:
    """Return the table of predicted and published times of whole networks, one image at a time."""
    doubtful = contradicted(found)
    kinds: dict[str, Callable[[Row], bool]] = {
        "conv, nothing streams": lambda row: row.family == "conv" and not _streams(row),
        "conv, streams": lambda row: row.family == "conv" and _streams(row),
        "conv": lambda row: row.family == "conv",
        "dense, nothing streams": lambda row: row.family == "dense" and not _streams(row),
        "dense, streams": lambda row: row.family == "dense" and _streams(row),
        "dense": lambda row: row.family == "dense",
    }
    whole = [row for row in found if row.segments == row.batch == 1]
    lines = []
    for kind, belongs in kinds.items():
        for said, own in (
            (kind, [row for row in whole if belongs(row)]),
            (
                "without contradicted networks",
                [r for r in whole if belongs(r) and (r.family, r.network) not in doubtful],
            ),
        ):
            errors = sorted(abs(predict(row.layers).ms / row.ms - 1) for row in own)
            lines.append(_time_line(said, errors))
    repeats: dict[tuple[str, tuple[int, ...]], list[float]] = defaultdict(list)
    for row in whole:
        repeats[row.family, row.network].append(row.ms)
    for kind in ("conv", "dense, nothing streams", "dense, streams"):
        networks = {(row.family, row.network) for row in whole if kinds[kind](row)}
        errors = sorted(abs(one / other - 1) for key in networks for one, other in permutations(repeats[key], 2))
        if errors:
            lines.append(_time_line(f"{kind}: another row of the same network", errors))
    shown = "; ".join(
        f"{family} {' x '.join(map(str, network))}: {', '.join(f'{each:g}' for each in ms)}"
        for (family, network), ms in sorted(doubtful.items())
    )
    headers = ("networks", "rows", "median error", "9 of 10 below", "within 15 %")
    return f"{table(headers, lines)}\n\nNetworks whose own rows differ by more than a tenth, in ms: {shown}."


def _time_line(said: str, errors: Sequence[float]) -> tuple[object, ...]:
    """A line of the table of times, from rising relative errors."""
    return (
        said,
        len(errors),
        f"{100 * statistics.median(errors):.1f} %",
        f"{100 * errors[int(0.9 * (len(errors) - 1))]:.1f} %",
        f"{sum(error <= 0.15 for error in errors)} of {len(errors)}",
    )


def section(shared: Path, cache: Path | None) -> str:
    """Return the section."""
    del cache
    test = [row for row in rows(shared) if row.test]
    return "\n\n".join(
        [
            "## Ladders of networks",
            f"Made by `python -m tools.{NAME.removesuffix('.py')} ../shared docs/explanation/numbers.md`. The networks "
            "are those of `edgetpu_ladders.json`: five convolutions of F filters on 64 x 64 x 3, and chains of dense "
            "layers, compiled and timed over PCIe. They are split by network: one whose CRC-32 (of `conv:F` or "
            "`dense:I:N:H`) is even may be fitted to, one whose CRC-32 is odd is only judged. **All figures here are "
            "of the odd half.**",
            "### Sizes and streaming",
            size_table(test),
            "### Times, one image, PCIe",
            time_table(test),
            "The rows *another row of the same network* show the error of a forecast that was measured: each row "
            "foreseen by every other row of its network. Below 0.35 ms a measurement repeated is off by more than 15 % "
            "in a third of the cases, so no formula can be within 15 % in nine of ten.",
        ]
    )


if __name__ == "__main__":
    sys.exit(run(NAME, __doc__, section))
