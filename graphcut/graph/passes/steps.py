"""Replace an operator by several others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.convolution import Double
from graphcut.records import Node, Shape


class Steps:
    """Nodes that replace an operator, in order.

    Args:
        net: the graph they will be part of.
        node: the operator.
        target: the output of the last step.

    Attributes:
        nodes: the steps so far.
    """

    def __init__(self, net: Net, node: Node, target: str) -> None:
        self.net, self._node, self._target = net, node, target
        self.nodes: list[Node] = []

    def add(self, op_type: str, inputs: tuple[str, ...], shape: Shape, **attributes: object) -> str:
        """Add a step; its output."""
        output, name = self.fresh(op_type.lower(), shape)
        self.nodes.append(
            Node(name=name, op_type=op_type, inputs=inputs, outputs=(output,), attributes=dict(attributes))
        )
        return output

    def fresh(self, what: str, shape: Shape) -> tuple[str, str]:
        """An output for the next step, and the step's name."""
        return self.net.add_tensor(self._target, what, shape), self.net.fresh(f"{self._node.name}_{what}")

    def mean(self, source: str, axes: tuple[int, ...], shape: Shape) -> str:
        """Add a mean over axes, which stay."""
        if self.net.opset < 18:
            return self.add("ReduceMean", (source,), shape, axes=axes, keepdims=1)
        name = self.net.add_weight(f"{self._node.name}_axes", np.array(axes, dtype=np.int64))
        return self.add("ReduceMean", (source, name), shape, keepdims=1)

    def sum(self, source: str, axes: tuple[int, ...], shape: Shape) -> str:
        """Add a sum over axes, which stay."""
        name = self.net.add_weight(f"{self._node.name}_axes", np.array(axes, dtype=np.int64))
        return self.add("ReduceSum", (source, name), shape, keepdims=1)

    def reshape(self, source: str, shape: Shape) -> str:
        """Add a Reshape."""
        numbers = self.net.add_weight(f"{self._node.name}_shape", np.array(shape, dtype=np.int64))
        return self.add("Reshape", (source, numbers), shape)

    def constant(self, what: str, value: Double | float, shape: Shape) -> str:
        """Add a weight."""
        return self.net.add_weight(
            f"{self._node.name}_{what}", np.asarray(value, dtype=np.float32).reshape(shape).copy()
        )

    def made(self) -> list[Node]:
        """All steps; the last one produces the target and has the operator's name."""
        return [*self.nodes[:-1], replace(self.nodes[-1], name=self._node.name, outputs=(self._target,))]
