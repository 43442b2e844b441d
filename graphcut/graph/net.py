"""The graph while it is being rewritten.

1. Nodes are immutable records; a rewrite replaces old ones by new ones. Every node has a unique name.
2. ``weights`` has every initialiser as a read-only array; a rewrite adds arrays and never changes one.
3. ``tensors`` has the shape and type of every activation that :meth:`Net.infer` found. :meth:`Net.unknown` names a node
   for which it found none.
4. ``nhwc_inputs`` and ``nhwc_outputs`` name those whose layout a rewrite changed from the file's NHWC to NCHW.
5. The order is topological and follows the file's order; a new node takes the place of the last one that it replaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from heapq import heapify, heappop, heappush

from onnx import ModelProto, NodeProto, ValueInfoProto

from graphcut.errors import ModelError, first_line
from graphcut.graph import native, protobuf
from graphcut.graph.protobuf import NumpyArray
from graphcut.records import Node, Shape, Tensor

DERIVED = "~"
"""Separates, in the name of a tensor that a rewrite adds, the name of its origin from what it is."""
REARRANGING = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"})
"""Operators that only rearrange: what they hand on has the values of their input."""


def topological(nodes: Sequence[Node]) -> list[Node]:
    """The nodes in topological order, keeping the given order wherever it already is one.

    Kahn's algorithm with the given position as priority (Kahn, CACM 5(11), 1962); linear where the order is
    topological already, O((V + E) log V) otherwise. Names that no node produces count as available.

    Raises:
        ModelError: the graph has a cycle, or two nodes produce the same tensor.
    """
    maker: dict[str, int] = {}
    for position, node in enumerate(nodes):
        for output in node.outputs:
            if not output:
                continue
            if output in maker:
                other = nodes[maker[output]]
                raise ModelError(
                    f"tensor {output!r} is produced by two nodes, {other.name!r} and {node.name!r}",
                    "the file is not valid ONNX; export the model again",
                )
            maker[output] = position
    if all(maker.get(name, -1) < position for position, node in enumerate(nodes) for name in node.inputs):
        return list(nodes)
    waiting = [len({maker[name] for name in node.inputs if name in maker}) for node in nodes]
    readers: dict[int, list[int]] = {}
    for position, node in enumerate(nodes):
        for source in {maker[name] for name in node.inputs if name in maker}:
            readers.setdefault(source, []).append(position)
    ready = [position for position, count in enumerate(waiting) if count == 0]
    heapify(ready)
    order: list[Node] = []
    while ready:
        position = heappop(ready)
        order.append(nodes[position])
        for reader in readers.get(position, ()):
            waiting[reader] -= 1
            if waiting[reader] == 0:
                heappush(ready, reader)
    if len(order) < len(nodes):
        stuck = next(nodes[position] for position, count in enumerate(waiting) if count)
        raise ModelError(
            f"the graph has a cycle through node {stuck.name!r} ({stuck.op_type})",
            "the file is not valid ONNX; export the model again",
        )
    return order


class Net:
    """A graph that can be edited; see the module docstring.

    Args:
        name: the graph's name.
        opset: version of the default operator set.
        nodes: uniquely named, in any order.
        inputs: the model's inputs, static shapes.
        outputs: names of the outputs, in order.
        weights: initialisers.
        protos: existing node messages by node name, to avoid building them again.
    """

    def __init__(
        self,
        *,
        name: str,
        opset: int,
        nodes: Iterable[Node],
        inputs: Iterable[Tensor],
        outputs: Sequence[str],
        weights: Mapping[str, NumpyArray],
        protos: Mapping[str, NodeProto] | None = None,
    ) -> None:
        self.name = name
        self.opset = opset
        self.inputs = {tensor.name: tensor for tensor in inputs}
        self.outputs = list(outputs)
        self.weights = dict(weights)
        self.tensors: dict[str, Tensor] = dict(self.inputs)
        self.nhwc_inputs: set[str] = set()
        self.nhwc_outputs: set[str] = set()
        self._nodes: dict[str, Node] = {}
        self._place: dict[str, tuple[int, int]] = {}
        self._producer: dict[str, str] = {}
        self._readers: dict[str, dict[str, None]] = {}
        self._names: set[str] = {*self.inputs, *self.weights}
        self._made = 0
        self._protos: dict[str, tuple[Node, NodeProto]] = {}
        for position, node in enumerate(topological(list(nodes))):
            self._insert(node, (position, 0))
            if protos is not None and node.name in protos:
                self._protos[node.name] = (node, protos[node.name])
        self._order: list[Node] | None = list(self._nodes.values())

    # Reading

    @property
    def nodes(self) -> Sequence[Node]:
        """All nodes in order (statement 5), as a list that later edits do not change."""
        if self._order is None:
            by_place = sorted(self._nodes.values(), key=lambda node: self._place[node.name])
            self._order = topological(by_place)
            self._place = {node.name: (position, 0) for position, node in enumerate(self._order)}
        return self._order

    def walk(self, *op_types: str) -> Iterator[Node]:
        """Iterate over the nodes of these types (all if none are given) in the initial order, while edits go on.

        Nodes that are dropped before their turn are skipped; nodes that are added during the walk are not visited.
        """
        for name in [node.name for node in self.nodes]:
            node = self._nodes.get(name)
            if node is not None and (not op_types or node.op_type in op_types):
                yield node

    def node(self, name: str) -> Node:
        """The node with that name in its current form."""
        return self._nodes[name]

    def place(self, node: Node) -> tuple[int, int]:
        """A key that sorts nodes by their order."""
        return self._place[node.name]

    def producer(self, tensor: str) -> Node | None:
        """The node that produces a tensor; None for inputs and weights."""
        name = self._producer.get(tensor)
        return None if name is None else self._nodes[name]

    def readers(self, tensor: str) -> list[Node]:
        """The nodes that read a tensor, each once."""
        return [self._nodes[name] for name in self._readers.get(tensor, ())]

    def only_reader(self, tensor: str) -> Node | None:
        """The one node that reads a tensor; None where there are more, none, or the tensor is an output."""
        names = self._readers.get(tensor, {})
        if len(names) != 1 or tensor in self.outputs:
            return None
        return self._nodes[next(iter(names))]

    def constant(self, tensor: str) -> NumpyArray | None:
        """The value of a weight; None for activations and omitted inputs."""
        return self.weights.get(tensor)

    def shape(self, tensor: str) -> Shape | None:
        """The static shape of an activation or weight; None where it is not known."""
        if tensor in self.weights:
            return tuple(self.weights[tensor].shape)
        known = self.tensors.get(tensor)
        return None if known is None else known.shape

    def rank(self, tensor: str) -> int | None:
        """Number of dimensions; None where it is not known."""
        shape = self.shape(tensor)
        return None if shape is None else len(shape)

    def dtype(self, tensor: str) -> str | None:
        """The numpy dtype name of an activation or weight; None where it is not known."""
        if tensor in self.weights:
            return str(self.weights[tensor].dtype)
        known = self.tensors.get(tensor)
        return None if known is None else known.dtype

    # Editing

    def replace(self, old: Sequence[Node], new: Sequence[Node]) -> None:
        """Replace nodes by others; the new nodes name the tensors that they produce."""
        place = max(self._place[node.name] for node in old)
        for node in old:
            self._remove(node)
        for node in new:
            self._made += 1
            self._insert(node, (place[0], self._made))
        self._order = None

    def add_weight(self, base: str, array: NumpyArray) -> str:
        """Add an initialiser with a name that begins with ``base``; returns the name."""
        name = self.fresh(base)
        array.setflags(write=False)
        self.weights[name] = array
        return name

    def add_tensor(self, base: str, what: str, shape: Shape, dtype: str = "float32") -> str:
        """Reserve the name of a new activation that belongs to the layer of ``base``: ``base~what``; returns it."""
        name = self.fresh(f"{base.split(DERIVED, maxsplit=1)[0]}{DERIVED}{what}")
        self.tensors[name] = Tensor(name=name, shape=shape, dtype=dtype)
        return name

    def set_shape(self, tensor: str, shape: Shape) -> None:
        """Change the declared shape of an activation."""
        old = self.tensors[tensor]
        self.tensors[tensor] = Tensor(name=tensor, shape=shape, dtype=old.dtype)
        if tensor in self.inputs:
            self.inputs[tensor] = self.tensors[tensor]

    def fresh(self, base: str) -> str:
        """A name that no tensor and no node has, returned only once."""
        name, number = base, 1
        while name in self._names or name in self._nodes:
            number += 1
            name = f"{base}_{number}"
        self._names.add(name)
        return name

    def bypass(self, node: Node, source: str) -> bool:
        """Drop a node and let the readers of its first output read ``source``.

        An output of the model keeps its name: the producer of ``source`` then gets that name for its output.

        Returns:
            False, with nothing done, where that is impossible (an input or another output of the model would have to
            change its name).
        """
        target = node.outputs[0]
        if target not in self.outputs:
            self._remove(node)
            self._reread(target, source)
            self._order = None
            return True
        maker = self.producer(source)
        if maker is None or source in self.outputs:
            return False
        self._remove(node)
        renamed = tuple(target if output == source else output for output in maker.outputs)
        self._swap(maker, replace(maker, outputs=renamed))
        self._reread(source, target)
        self._order = None
        return True

    def reread(self, old: str, new: str) -> None:
        """Let every reader of one tensor read another; the outputs of the model do not change."""
        self._reread(old, new)
        self._order = None

    def sweep(self) -> int:
        """Drop nodes that no output depends on and weights that no node reads; returns the number of dropped nodes."""
        needed: set[str] = set()
        stack = [name for name in self.outputs if name in self._producer]
        while stack:
            maker = self._producer[stack.pop()]
            if maker in needed:
                continue
            needed.add(maker)
            stack.extend(name for name in self._nodes[maker].inputs if name in self._producer)
        dead = [node for node in self._nodes.values() if node.name not in needed]
        for node in dead:
            self._remove(node)
            for output in node.outputs:
                self.tensors.pop(output, None)
        kept = {*self._readers, *self.outputs}
        self.weights = {name: array for name, array in self.weights.items() if name in kept}
        if dead:
            self._order = None
        return len(dead)

    # Whole-graph operations

    def infer(self, *, strict: bool = True) -> None:
        """Find the shapes and types of all activations again, from the inputs and small weights.

        Args:
            strict: False leaves outputs unknown where inference rejects a node, instead of raising.

        Raises:
            ModelError: the graph contradicts itself.
        """
        try:
            model = native.inferred(self.skeleton(), strict=strict)
        except native.NativeError as error:
            raise ModelError(
                f"shapes do not fit: {first_line(error)}", "check the model's inputs and export"
            ) from error
        self.tensors = dict(self.inputs)
        for value in (*model.graph.value_info, *model.graph.output):
            shape = protobuf.static_shape(value)
            if shape is None or value.name in self.inputs:
                continue
            dtype = protobuf.dtype_name(value.type.tensor_type.elem_type)
            self.tensors[value.name] = Tensor(name=value.name, shape=shape, dtype=dtype)

    def unknown(self) -> Node | None:
        """The first node with an output whose shape is not known; None where all are known."""
        for node in self.nodes:
            if any(output and output not in self.tensors for output in node.outputs):
                return node
        return None

    def skeleton(self) -> ModelProto:
        """The model without its large weights' values (protobuf, statement 2)."""
        return protobuf.build(
            self.name,
            self.opset,
            self.protos(),
            list(self.inputs.values()),
            self.output_infos(),
            self.weights,
            weights_as_inputs_above=protobuf.SMALL_ELEMENTS,
        )

    def protos(self) -> list[NodeProto]:
        """The node messages, in order."""
        messages = []
        for node in self.nodes:
            cached = self._protos.get(node.name)
            if cached is None or cached[0] is not node:
                cached = (node, protobuf.node_proto(node))
                self._protos[node.name] = cached
            messages.append(cached[1])
        return messages

    def output_infos(self) -> list[ValueInfoProto]:
        """Declarations of the outputs, without a type where it is not known yet."""
        return [
            protobuf.value_info(self.tensors[name]) if name in self.tensors else protobuf.untyped(name)
            for name in self.outputs
        ]

    def copy(self) -> Net:
        """An independent copy; arrays and nodes, which nobody changes, are shared."""
        other = Net(name=self.name, opset=self.opset, nodes=(), inputs=(), outputs=self.outputs, weights=self.weights)
        other.inputs = dict(self.inputs)
        other.tensors = dict(self.tensors)
        other.nhwc_inputs = set(self.nhwc_inputs)
        other.nhwc_outputs = set(self.nhwc_outputs)
        other._order = list(self.nodes)
        other._nodes = dict(self._nodes)
        other._place = dict(self._place)
        other._producer = dict(self._producer)
        other._readers = {tensor: dict(readers) for tensor, readers in self._readers.items()}
        other._names = set(self._names)
        other._protos = dict(self._protos)
        other._made = self._made
        return other

    def _insert(self, node: Node, place: tuple[int, int]) -> None:
        if node.name in self._nodes:
            raise ValueError(f"two nodes have the name {node.name!r}")
        self._nodes[node.name] = node
        self._place[node.name] = place
        for output in node.outputs:
            if output:
                self._producer[output] = node.name
                self._names.add(output)
        for name in node.inputs:
            if name:
                self._readers.setdefault(name, {})[node.name] = None

    def _remove(self, node: Node) -> None:
        del self._nodes[node.name]
        del self._place[node.name]
        for output in node.outputs:
            if self._producer.get(output) == node.name:
                del self._producer[output]
        self._unread(node)

    def _unread(self, node: Node) -> None:
        for name in {name for name in node.inputs if name}:
            readers = self._readers[name]
            del readers[node.name]
            if not readers:
                del self._readers[name]

    def _swap(self, old: Node, new: Node) -> None:
        place = self._place[old.name]
        self._remove(old)
        self._insert(new, place)

    def _reread(self, old: str, new: str) -> None:
        for node in self.readers(old):
            inputs = tuple(new if name == old else name for name in node.inputs)
            self._swap(node, replace(node, inputs=inputs))
