"""Connect the parts of a split by their tensors, and check that the parts fit each other.

1. A part's input is the output of the same name of an earlier part, or an input of the model. Tensors may skip parts:
   they are passed on as long as a later part or the model's outputs need them.
2. Both sides of a seam agree on shape, dtype, scale and zero point, so that int8 is handed over unchanged. That is
   checked by name when parts are loaded; a disagreement is an error, never a conversion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from graphcut.errors import RunError
from graphcut.runtime.interpreter import Edge


class Ends(NamedTuple):
    """One part's label and edges."""

    label: str
    inputs: tuple[Edge, ...]
    outputs: tuple[Edge, ...]


class Flow(NamedTuple):
    """The tensors of each part.

    Attributes:
        parts: in order.
        inputs: the model's inputs, in the order in which parts first read them.
        outputs: the model's outputs.
        alive: for each part, the names that are needed after it, with the model's inputs that are not read yet.
        handed_bytes: for each part but the last, the bytes produced by parts that are needed after it.
    """

    parts: tuple[Ends, ...]
    inputs: tuple[Edge, ...]
    outputs: tuple[Edge, ...]
    alive: tuple[frozenset[str], ...]
    handed_bytes: tuple[int, ...]


def connect(parts: Sequence[Ends], inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> Flow:
    """Connect parts by the names of their tensors (statement 1) and check every seam (statement 2).

    Args:
        parts: in the order in which they run.
        inputs: names of the model's inputs, in order; empty for everything that parts read and no part produces.
        outputs: names of the model's outputs, in order; empty for those that no part reads.

    Raises:
        RunError: there are no parts, the sides of a seam differ, a tensor is produced twice, or an output by no part.
    """
    if not parts:
        raise RunError("there is no segment to run", "pass the folder that graphcut split wrote")
    made: dict[str, tuple[str, Edge]] = {}
    entering: dict[str, tuple[str, Edge]] = {}
    for part in parts:
        for edge in part.inputs:
            maker, known = made.get(edge.name) or entering.setdefault(edge.name, (part.label, edge))
            if known != edge:
                raise RunError(
                    f"{maker} produces {edge.name} as {known}, but {part.label} reads it as {edge}",
                    "run segments of the same split together",
                )
        for edge in part.outputs:
            if edge.name in made or edge.name in entering:
                other = (made.get(edge.name) or entering[edge.name])[0]
                raise RunError(
                    f"{part.label} produces {edge.name}, which {other} already produces", "pass each part once"
                )
            made[edge.name] = (part.label, edge)
    read = {edge.name for part in parts for edge in part.inputs}
    wanted = tuple(outputs) or tuple(name for name in made if name not in read)
    missing = [name for name in wanted if name not in made]
    if missing:
        raise RunError(f"no part produces the output {', '.join(missing)}", "pass all parts of one split")
    _reject_lost(parts, set(inputs), bool(outputs), {name: label for name, (label, _) in entering.items()})
    order = [name for name in inputs if name in entering] or list(entering)
    alive = _alive(parts, set(entering), wanted)
    size = {name: bytes_of(edge) for name, (_, edge) in made.items()}
    return Flow(
        parts=tuple(parts),
        inputs=tuple(entering[name][1] for name in order),
        outputs=tuple(made[name][1] for name in wanted),
        alive=alive,
        handed_bytes=tuple(sum(size.get(name, 0) for name in names) for names in alive[:-1]),
    )


def _reject_lost(parts: Sequence[Ends], inputs: set[str], outputs_known: bool, entering: dict[str, str]) -> None:
    """Refuse a sequence with a missing part, whose output would be taken for an input of the model.

    If the model's inputs are unknown, the gap shows as a part that reads nothing produced before it, after a part whose
    outputs are not read.
    """
    read = {edge.name for part in parts for edge in part.inputs}
    for before, part in zip(parts, parts[1:]):
        strangers = [edge.name for edge in part.inputs if entering.get(edge.name) == part.label]
        if inputs:
            lost = [name for name in strangers if name not in inputs]
        else:
            unread = not outputs_known and not any(edge.name in read for edge in before.outputs)
            lost = strangers if unread and len(strangers) == len(part.inputs) else []
        if lost:
            made = ", ".join(edge.name for edge in before.outputs)
            raise RunError(
                f"{part.label} reads {', '.join(lost)}, which no part before it produces ({before.label} produces "
                f"{made})",
                "pass all parts of one split, in order",
            )


def _alive(parts: Sequence[Ends], entering: set[str], outputs: Sequence[str]) -> tuple[frozenset[str], ...]:
    made: set[str] = set(entering)
    known = []
    for part in parts:
        made |= {edge.name for edge in part.outputs}
        known.append(frozenset(made))
    needed = set(outputs)
    alive = []
    for part, before in zip(reversed(parts), reversed(known)):
        alive.append(before & needed)
        needed |= {edge.name for edge in part.inputs}
    return tuple(reversed(alive))


def bytes_of(edge: Edge) -> int:
    """Bytes of one tensor."""
    count = 1
    for size in edge.shape:
        count *= size
    widths = {"int8": 1, "uint8": 1, "bool": 1, "int16": 2, "float16": 2, "float32": 4, "int32": 4, "int64": 8}
    return count * widths.get(edge.dtype, 1)
