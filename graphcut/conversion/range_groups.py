"""The activations of a chain whose ranges may be chosen, with their candidates.

1. A group is a set of activations with one scale (:mod:`graphcut.tflite.scales`) in all files: a seam joins the groups
   on both sides.
2. A group may be chosen where it is free in every file and its scale is the same in all, and where none of its
   activations is an input of the model.
3. The last candidate is the range with which the operators that read the group make the least noise
   (:mod:`graphcut.quant.reader_ranges`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphcut.measurement.float_reference import FloatWhole
from graphcut.measurement.int8_chain import THREADS
from graphcut.measurement.metrics import to_nhwc
from graphcut.progress import Event, Report, silent
from graphcut.quant import reader_ranges
from graphcut.quant.clipping import Range, ranges_by_level, scale_of, seen_by_readers
from graphcut.quant.kept import Kept
from graphcut.records import ConvertedSegment, Samples
from graphcut.tflite.scales import Group, Rescalable, Scale, groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustable:
    """A group of activations whose range may be chosen.

    Attributes:
        names: (number of the file, activation name), sorted.
        levels: the range at each level; level 0 is the present one.
        is_output: one of them is an output of the model.
    """

    names: tuple[tuple[int, str], ...]
    levels: tuple[Range, ...]
    is_output: bool

    @property
    def now(self) -> Range:
        """The present range."""
        return self.levels[0]


def adjustable(segments: Sequence[ConvertedSegment], kept: Sequence[Kept]) -> tuple[Adjustable, ...]:
    """The groups that may be chosen, in order of computation.

    Args:
        segments: aligned, in order.
        kept: what each was quantised with.
    """
    files = [part.tflite_path.read_bytes() for part in segments]
    read = {tensor.layer for part in segments for tensor in part.inputs}
    made = {tensor.layer for part in segments for tensor in part.outputs}
    seen = [seen_by_readers(data) for data in files]
    rescalable = [Rescalable(data) for data in files]
    found = []
    for members in _clusters(files, read | made):
        names = {name for _, group in members for name in group.names}
        alike = len({group.scale for _, group in members}) == 1
        if not alike or not all(group.free for _, group in members) or names & (read - made):
            continue
        one = Group(names=tuple(sorted(names)), scale=members[0][1].scale, free=True)
        observed = {name: [kept[n].ranges[name] for n, _ in members if name in kept[n].ranges] for name in names}
        limits = seen[members[0][0]] if len(members) == 1 else {}
        places = tuple(sorted((number, name) for number, group in members for name in group.names))
        levels = list(ranges_by_level(one, observed, limits))
        for level in range(1, len(levels)):
            new = scale_of(levels[level])
            if levels[level] != levels[0] and not all(rescalable[number].fits(name, new) for number, name in places):
                levels[level] = levels[level - 1]
        if any(each != levels[0] for each in levels):
            found.append(Adjustable(names=places, levels=tuple(levels), is_output=bool(names & (made - read))))
    return tuple(found)


def judged_by_readers(
    free: Sequence[Adjustable],
    segments: Sequence[ConvertedSegment],
    kept: Sequence[Kept],
    samples: Samples,
    whole: FloatWhole,
    report: Report = silent,
) -> list[tuple[Adjustable, float]]:
    """Each group with one more level (statement 3), and how much less noise its readers make with it, in dB.

    Args:
        free: from :func:`adjustable`.
        segments, kept: as there.
        samples: the calibration samples.
        whole: the float whole on them.
        report: progress.
    """
    count = min(len(samples), reader_ranges.SAMPLES)
    numbers = [number * len(samples) // count for number in range(count)]
    values = {**whole.seams, **whole.outputs}
    files, rescalable = [], []
    for part, known in zip(segments, kept, strict=True):
        held = [samples.arrays.get(each.tensor, values.get(each.layer)) for each in part.inputs]
        feeds = [[to_nhwc(array[n : n + 1]) for array in held if array is not None] for n in numbers]
        int8 = part.tflite_path.read_bytes()
        scales = {name: group.scale for group in groups(int8) for name in group.names}
        files.append(reader_ranges.FloatFile(known.float_path.read_bytes(), feeds, scales, threads=THREADS))
        rescalable.append(Rescalable(int8))
    found = []
    for done, group in enumerate(reversed(free)):
        report(Event(stage="ranges", done=done, total=len(free), detail="by what reads them"))
        lows, highs = zip(*group.levels[1:], strict=True)
        chosen = reader_ranges.Choice(range=group.now, gain_db=0.0)
        if not group.is_output:
            chosen = reader_ranges.choose(files, group.names, group.now, lows, highs)
        new = scale_of(chosen.range)
        fits = all(rescalable[number].fits(name, new) for number, name in group.names)
        level = chosen.range if fits else group.now
        found.append((replace(group, levels=(*group.levels, level)), chosen.gain_db if fits else 0.0))
    return found[::-1]


def _clusters(files: Sequence[bytes], edges: set[str]) -> list[list[tuple[int, Group]]]:
    """The groups of all files, those that share the name of an edge together, by the first of each."""
    members = [(number, group) for number, data in enumerate(files) for group in groups(data)]
    leader = list(range(len(members)))
    at_edge: dict[str, int] = {}
    for place, (_, group) in enumerate(members):
        for name in edges.intersection(group.names):
            old, new = leader[at_edge.setdefault(name, place)], leader[place]
            leader = [min(old, new) if each in (old, new) else each for each in leader]
    clusters: dict[int, list[tuple[int, Group]]] = {}
    for place, member in enumerate(members):
        clusters.setdefault(leader[place], []).append(member)
    return list(clusters.values())


def scales_by_file(free: Sequence[Adjustable], levels: Sequence[int], files: int) -> list[dict[str, Scale]]:
    """By file: activation name -> its new scale, for those that have one."""
    found: list[dict[str, Scale]] = [{} for _ in range(files)]
    for group, level in zip(free, levels, strict=True):
        if group.levels[level] != group.now:
            new = scale_of(group.levels[level])
            for number, name in group.names:
                found[number][name] = new
    return found
