"""Make the parts of an output that a Concat joins separate outputs.

1. int8 has one scale per tensor. Where a detector joins boxes in pixels and scores from 0 to 1, the scale of the boxes
   leaves one step for all scores. As separate outputs both have the scale that they need.
2. An output is split at the Concat that produces it, before any operators that only rearrange (Reshape, Transpose,
   ...). These are dropped: a part is an input of the Concat. A part that is itself a Concat is split in turn.
3. Joined constants and inputs of the model do not become outputs.
"""

from __future__ import annotations

from graphcut.errors import UsageError, setting
from graphcut.graph.net import REARRANGING, Net
from graphcut.records import Node


def split_outputs(net: Net) -> tuple[str, ...]:
    """Replace joined outputs by their parts; returns a note for each output that was split.

    Raises:
        UsageError: no output is joined by a Concat.
    """
    notes, outputs = [], list[str]()
    for output in net.outputs:
        parts = _parts(net, output)
        outputs += [name for name in parts if name not in outputs]
        if parts != [output]:
            notes.append(f"output {output!r} is split into the {len(parts)} parts that it joins")
    if not notes:
        raise UsageError(
            "no output of the model is joined by a Concat, so there is nothing to split",
            f"omit {setting('split_outputs')}",
        )
    net.outputs = outputs
    net.sweep()
    return tuple(notes)


def _parts(net: Net, tensor: str) -> list[str]:
    """The tensors that a tensor joins, in order; itself where no Concat makes it."""
    concat = _concat(net, tensor)
    if concat is None:
        return [tensor]
    made = [name for name in concat.inputs if net.producer(name) is not None]
    parts = [part for name in made for part in _parts(net, name)]
    return list(dict.fromkeys(parts)) or [tensor]


def _concat(net: Net, tensor: str) -> Node | None:
    """The Concat that produces a tensor, skipping operators that only rearrange; None if there is none."""
    node = net.producer(tensor)
    while node is not None and node.op_type in REARRANGING:
        node = net.producer(node.inputs[0])
    return node if node is not None and node.op_type == "Concat" else None
