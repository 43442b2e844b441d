"""The activations of a chain whose ranges may be chosen, with their candidates.

1. A group is a set of activations with one scale (:mod:`graphcut.tflite.scales`) in all files: a seam joins the groups
   on both sides.
2. A group may be chosen where it is free in every file and its scale is the same in all, and where none of its
   activations is an input of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphcut.quant.clipping import Range, ranges_by_level, scale_of, seen_by_readers
from graphcut.quant.kept import Kept
from graphcut.records import ConvertedSegment
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
