"""Convert inputs that are channels-last although no transposition shows it.

A file shows that an input is NHWC by transposing it to NCHW before the first convolution. Without that transposition
the layout must be known from the source or given by the user.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from graphcut.graph.net import Net
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.turning import TO_NCHW, TO_NHWC
from graphcut.records import Node, Shape

IMAGE_CHANNELS = (1, 3, 4)
EVERY = ""
"""Stands for every input of rank 4 in a mapping by name."""


def input_layouts(layouts: Mapping[str, Literal["NCHW", "NHWC"]], *, channels_last: bool) -> Pass:
    """The rewrite that makes NHWC inputs NCHW.

    Args:
        layouts: input name, or ``EVERY``, -> layout in the file, as given by the user.
        channels_last: the source writes images channels-last: an input whose shape looks like a channels-last image is
            one.
    """

    def turn(net: Net) -> int:
        return sum(_turn(net, name) for name in list(net.inputs) if _is_nhwc(net, name))

    def _is_nhwc(net: Net, name: str) -> bool:
        shape = net.shape(name)
        if shape is None or len(shape) != 4:
            return False
        said = layouts.get(name, layouts.get(EVERY))
        if said is not None:
            return said == "NHWC"
        return channels_last and looks_channels_last(shape) and not _is_turned(net, name)

    return Pass(
        name="input-layout",
        reason="images are channels-first in the normalised model",
        apply=turn,
    )


def looks_channels_last(shape: Shape) -> bool:
    """Whether a shape of rank 4 can be an image in NHWC and in no other way."""
    return shape[3] in IMAGE_CHANNELS and shape[1] not in IMAGE_CHANNELS


def _is_turned(net: Net, name: str) -> bool:
    """Whether the file itself transposes an input to NCHW at once."""
    return any(node.op_type == "Transpose" and node.attributes.get("perm") == TO_NCHW for node in net.readers(name))


def _turn(net: Net, name: str) -> int:
    """Make an input NCHW and transpose it to NHWC for its readers; adjacent transpositions are removed later."""
    shape, readers = net.shape(name), net.readers(name)
    if shape is None or not readers or name in net.outputs:
        return 0
    turned = net.add_tensor(name, "nhwc", shape)
    net.reread(name, turned)
    first = min((net.node(node.name) for node in readers), key=net.place)
    made = Node(
        name=net.fresh(f"{name}_to_nhwc"),
        op_type="Transpose",
        inputs=(name,),
        outputs=(turned,),
        attributes={"perm": TO_NHWC},
    )
    net.replace([first], [made, first])
    net.set_shape(name, tuple(shape[axis] for axis in TO_NCHW))
    net.nhwc_inputs.add(name)
    return 1
