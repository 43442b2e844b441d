"""Predict what the converter writes for every node: operators, constants and names in the file.

1. A Conv becomes CONV_2D or DEPTHWISE_CONV_2D with a filter and a bias (written even where ONNX has none), a PAD before
   it where its padding is not TFLite's SAME; a Gemm becomes FULLY_CONNECTED. Their constants have a scale an output
   channel, or one per tensor. An activation that fuses into its producer adds no operator and gives the tensor its
   name.
2. A node with activations only becomes one operator; constant operands have one scale.
3. CONCATENATION needs its inputs at its own scale. The quantiser gives that scale to an input that has no other reader;
   an input whose scale is settled (prescribed, read elsewhere, kept from an earlier tensor, or from outside) gets a
   QUANTIZE. Where all are settled, those with the scale of one of them are taken to have the range of the whole, unless
   that scale is prescribed (graphcut.quant.scale_rules). The same applies to MAXIMUM.
4. Slices that divide one tensor into equal parts become one SPLIT, those with steps a STRIDED_SLICE; a multiplication
   by one number is merged into the next.
5. Operators without an int8 form are computed in float, between a DEQUANTIZE and a QUANTIZE.
6. Names are those of onnx2tf 2.6: the layer's, with an ending.

Not modelled are the TRANSPOSE operators that the converter leaves where it abandons NHWC, and operators in no list here
(each counts as one operator without options).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import chain
from math import prod

from graphcut.prediction.node_attributes import bytes_of, is_same, number, numbers, text, written
from graphcut.prediction.tflite_operators import convolution, operator_of, pad, present, quantize
from graphcut.records import Graph, Node, Shape
from graphcut.tflite.scale_of_input import ONNX_OPERATORS
from graphcut.tflite.table_bytes import Activation, Constant, Operator
from graphcut.tflite.uint8_edges import INNER

FUSED = frozenset({"Relu", "Clip"})
FUSES_INTO = frozenset({"Conv", "Gemm", "Add", "Sub", "Mul"})
_NOTHING = frozenset({"Identity", "Dropout", "Cast"})
_ENDS_NHWC = frozenset({"Conv", "MaxPool", "AveragePool", "Resize", "Upsample"})
_PRESCRIBED = frozenset({"Sigmoid", "Softmax", "LogSoftmax", "Tanh"})
_SETTLED = ONNX_OPERATORS | _PRESCRIBED | {"Concat"}
_BARE = {
    **{"Sigmoid": "LOGISTIC", "Tanh": "TANH", "Relu": "RELU", "Clip": "RELU6", "HardSwish": "HARD_SWISH"},
    **{"Exp": "EXP", "Sqrt": "SQRT", "Neg": "NEG", "Abs": "ABS", "Elu": "ELU", "PRelu": "PRELU", "Pad": "PAD"},
    **{"Max": "MAXIMUM", "Min": "MINIMUM", "Erf": "ERF", "Pow": "POW"},
}
_FLOAT = frozenset({"RELU6", "EXP", "NEG", "ABS", "ELU", "PRELU", "MINIMUM", "ERF", "POW"})
"""Operators without an int8 form in ai-edge-quantizer 0.5."""
_FOR_MAPS = frozenset({"MaxPool", "AveragePool", "Resize", "Upsample"})
_NOT_NEGATIVE = frozenset({"Relu", "Clip", "Sigmoid", "Softmax"})
_BINARY = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL", "Div": "DIV"}
_MEANS = {"GlobalAveragePool": "MEAN", "ReduceMean": "MEAN", "GlobalMaxPool": "REDUCE_MAX", "ReduceMax": "REDUCE_MAX"}
_SHAPES = {"Flatten": "flatten", "Reshape": "reshape", "Squeeze": "squeeze", "Unsqueeze": "unsqueeze"}


class Itemised:
    """The operators of every node.

    Args:
        graph: normalised.
        per_channel: weights get one scale per output channel.

    Attributes:
        nodes: operators by node, in the order of the graph.
        ends: activation -> its index among the tensors that the operators of its node add (-1: the last), for nodes
            that add any. ``fused`` gives what an activation is fused into.
        fused: output of a fused activation -> the tensor it fused into.
        doubtful: output of a concatenation -> each QUANTIZE that it needs if the assumption of statement 3 about a
            range is wrong, which depends on the samples.
    """

    def __init__(self, graph: Graph, *, per_channel: bool = True) -> None:
        self._graph = graph
        self._per_channel = per_channel
        self._makers = {name: node for node in graph.nodes for name in node.outputs}
        self._readers = Counter(chain.from_iterable(node.inputs for node in graph.nodes))
        may_fuse = (node for node in graph.nodes if node.op_type in FUSED)
        self.fused = {node.outputs[0]: node.inputs[0] for node in may_fuse if self._fuses(node)}
        self._parts = self._equal_parts()
        self._joins: dict[str, tuple[str, Operator | None]] = {}
        self.doubtful: dict[str, tuple[Operator, ...]] = {}
        self._named = {inner: outer for outer, inner in self.fused.items()}
        nodes = [() if node.outputs[0] in self.fused else self._node(node) for node in graph.nodes]
        self.nodes = tuple(self._with_uint8(nodes) if graph.uint8 else nodes)

    def unfused(self, node: Node) -> tuple[Operator, ...]:
        """The operators of an activation that cannot be fused, because its input comes from outside."""
        return self._node(node)

    def _with_uint8(self, nodes: list[tuple[Operator, ...]]) -> list[tuple[Operator, ...]]:
        """The operators with a QUANTIZE after each uint8 input, where it is read first, and before each output."""
        places = {name: place for place, node in enumerate(self._graph.nodes) for name in node.outputs}
        first: dict[str, int] = {}
        for place, node in enumerate(self._graph.nodes):
            for name in node.inputs:
                first.setdefault(name, place)
        for name in self._graph.uint8:
            converts = self.from_uint8(name)
            if name not in places:
                nodes[first[name]] = (converts, *nodes[first[name]])
                continue
            while name in self.fused:
                name = self.fused[name]
            *others, last = nodes[places[name]] or (None,)
            if last is not None:
                inner = last.tensors[-1]._replace(name=converts.tensors[0].name)
                nodes[places[name]] = (*others, last._replace(tensors=(*last.tensors[:-1], inner)), converts)
        return nodes

    def from_uint8(self, tensor: str) -> Operator:
        """The QUANTIZE between a uint8 input or output and the int8 tensor inside, which has a longer name."""
        return quantize(bytes_of(self._graph.layers[tensor]) + len(INNER), len(self._shape(tensor)))

    def rescaled(self, tensor: str) -> Operator:
        """The QUANTIZE that a concatenation puts before a tensor whose scale is settled."""
        return quantize(self._inner(tensor) + len("_quantized"), len(self._shape(tensor)))

    def is_settled(self, tensor: str) -> bool:
        """Whether a concatenation cannot choose the scale of an input (statement 3)."""
        maker = self._makers.get(tensor)
        return maker is None or self._readers[tensor] > 1 or maker.op_type in _SETTLED

    def _fuses(self, node: Node) -> bool:
        source = node.inputs[0] if node.inputs else ""
        return (
            self._readers.get(source) == 1
            and source in self._makers
            and self._makers[source].op_type in FUSES_INTO
            and source not in self._graph.outputs
        )

    @cached_property
    def _reader(self) -> Mapping[str, Node]:
        """Tensor -> the last node that reads it."""
        return {name: node for node in self._graph.nodes for name in node.inputs}

    def _node(self, node: Node) -> tuple[Operator, ...]:
        if node.op_type in _NOTHING:
            return ()
        rank = len(self._shape(node.outputs[0]))
        if node.op_type in _WEIGHTED and len(node.inputs) > 1:
            weight = self._graph.weights.get(node.inputs[1])
            if weight is not None and len(weight.shape) == rank:
                return _WEIGHTED[node.op_type](self, node)
        if node.op_type in _FOR_MAPS and not rank == len(self._shape(node.inputs[0])) == 4:
            return self._other(node)
        return _PLAIN.get(node.op_type, Itemised._other)(self, node)

    # Names and shapes.

    def _layer(self, tensor: str) -> int:
        """Length of a layer's name as the converter writes it."""
        return written(self._graph.layers.get(tensor, tensor))

    def _output(self, node: Node, ending: str = "") -> Activation:
        """The tensor that a node produces, named after the activation fused into it, or its layer with a suffix."""
        made = node.outputs[0]
        outer = self._named.get(made)
        name = self._layer(made) + len(ending) if outer is None else self._layer(outer)
        return Activation(name, len(self._shape(made)))

    def _shape(self, tensor: str) -> Shape:
        return self._graph.tensors[tensor].shape

    def _act(self, node: Node) -> int:
        """1 where an activation is fused into the node."""
        return int(node.outputs[0] in self._named)

    def _operands(self, node: Node) -> tuple[Constant, ...]:
        """The constants that a node reads, quantised as a whole."""
        weights = self._graph.weights
        found = [weights[name] for name in node.inputs if name in weights]
        return tuple([Constant(written(each.name), max(len(each.shape), 1), each.elements, 1) for each in found])

    # Operators with weights.

    def _conv(self, node: Node) -> tuple[Operator, ...]:
        made = node.outputs[0]
        name, outer = self._layer(made), self._named.get(made)
        return convolution(
            self._graph.weights[node.inputs[1]].shape,
            self._shape(node.inputs[0]),
            self._shape(made),
            numbers(node, "strides", 2, 1),
            numbers(node, "dilations", 2, 1),
            numbers(node, "pads", 4, 0),
            number(node, "group", 1),
            self._per_channel,
            name,
            None if outer is None else self._layer(outer),
        )

    def _gemm(self, node: Node) -> tuple[Operator, ...]:
        shape = self._graph.weights[node.inputs[1]].shape
        made = self._shape(node.outputs[0])
        name, channels = self._layer(node.outputs[0]), made[-1]
        constants = (
            Constant(name + len("_fc_weights"), 2, prod(shape), 1),
            Constant(name + len("_fc_bias"), 1, 4 * channels, 1),
        )
        options = present((0, 1, self._act(node)))
        return (operator_of("FULLY_CONNECTED", 3, 1, (*constants, self._output(node)), options),)

    def _conv_transpose(self, node: Node) -> tuple[Operator, ...]:
        shape, name = self._graph.weights[node.inputs[1]].shape, self._layer(node.outputs[0])
        channels = self._shape(node.outputs[0])[1]
        constants = (
            Constant(name + len("_transpose_conv_output_shape"), 1, 16),
            Constant(name + len("_transpose_conv_filter"), 4, prod(shape), channels if self._per_channel else 1),
        )
        padded = any(numbers(node, "pads", 4, 0))
        made = Activation(name + len("_output_nhwc"), 4)
        options = present((0, 1, int(not padded)), (1, 4, 1), (2, 4, 1))
        operator = operator_of("TRANSPOSE_CONV", 3, 1, (*constants, made), options)
        if len(node.inputs) < 3:
            return (operator,)
        bias = Constant(name + len("_transpose_conv_bias"), 4, channels, 1)
        added = Activation(name + len("_output_nhwc_bias"), 4)
        return operator, operator_of("ADD", 2, 1, (bias, added), present((0, 1, self._act(node))))

    # Operators without.

    def _binary(self, node: Node) -> tuple[Operator, ...]:
        if self._goes_into_next(node):
            return ()
        operands = self._operands(node)
        code = _BINARY[node.op_type]
        if code == "DIV" and operands and operands[0].data == 1:
            code, name = "MUL", self._layer(node.outputs[0]) + len("_div_reciprocal")
            operands = (Constant(name, 1, 1, 1),)
        elif operands and (before := self._factor_before(node)) is not None:
            operands = (operands[0]._replace(name=written(before) + len("_mulfused")),)
        return (operator_of(code, 2, 1, (*operands, self._output(node)), present((0, 1, self._act(node)))),)

    def _goes_into_next(self, node: Node) -> bool:
        """Whether a Mul by one number is made part of the Mul by a constant after it."""
        if node.op_type != "Mul" or self._readers.get(node.outputs[0]) != 1:
            return False
        operands = self._operands(node)
        if not operands or operands[0].data != 1:
            return False
        reader = self._reader[node.outputs[0]]
        return reader.op_type == "Mul" and any(name in self._graph.weights for name in reader.inputs)

    def _factor_before(self, node: Node) -> str | None:
        """The factor that an earlier Mul has merged into this one."""
        for name in node.inputs:
            maker = self._makers.get(name)
            if maker is not None and maker.op_type == "Mul" and self._goes_into_next(maker):
                return next(each for each in maker.inputs if each in self._graph.weights)
        return None

    def _bare(self, node: Node) -> tuple[Operator, ...]:
        if node.op_type == "Pad":
            return (pad(self._layer(node.outputs[0]), "_pads", ""),)
        operands = () if node.op_type == "Clip" else self._operands(node)
        code, made = _BARE[node.op_type], self._output(node)
        if code not in _FLOAT:
            settled = [name for name in node.inputs if code == "MAXIMUM" and self._is_rescaled(name)]
            only = operator_of(code, len(node.inputs), 1, (*operands, made), () if code == "MAXIMUM" else None)
            return (*map(self.rescaled, settled), only)
        read = Activation(self._inner(node.inputs[0]) + len("_dequant"), made.rank, 0)
        written = made._replace(name=made.name + len("_quantized"))
        return (
            operator_of("DEQUANTIZE", 1, 1, (read,), None),
            operator_of(code, 1 + len(operands), 1, (*operands, made._replace(scales=0)), None),
            operator_of("QUANTIZE", 1, 1, (written,), None),
        )

    def _pool(self, node: Node) -> tuple[Operator, ...]:
        fed, made = self._shape(node.inputs[0]), self._shape(node.outputs[0])
        kernel, strides = numbers(node, "kernel_shape", 2, 1), numbers(node, "strides", 2, 1)
        same = is_same(fed[2:], made[2:], kernel, strides, (1, 1), numbers(node, "pads", 4, 0))
        options = present((0, 1, int(not same)), (1, 4, 1), (2, 4, 1), (3, 4, 1), (4, 4, 1))
        code = "MAX_POOL_2D" if node.op_type == "MaxPool" else "AVERAGE_POOL_2D"
        return (operator_of(code, 1, 1, (self._output(node, "_output_nhwc"),), options),)

    def _mean(self, node: Node) -> tuple[Operator, ...]:
        name = self._layer(node.outputs[0])
        axes = Constant(name + len("_global_avg_axes"), 1, 8)
        return (operator_of(_MEANS[node.op_type], 2, 1, (axes, self._output(node)), ((0, 1),)),)

    def _reshape(self, node: Node) -> tuple[Operator, ...]:
        rank = len(self._shape(node.outputs[0]))
        ending = f"_{_SHAPES[node.op_type]}_shape"
        if rank == 4 and node.outputs[0] in self._graph.outputs:
            ending = "/ending_input_nhwc_reshape_shape"
        name = self._layer(node.outputs[0]) + len(ending)
        made = self._output(node)
        return (operator_of("RESHAPE", 2, 1, (Constant(name, 1, 4 * rank), made), ((0, 4),), 4 + 4 * rank),)

    def _softmax(self, node: Node) -> tuple[Operator, ...]:
        return (operator_of("SOFTMAX", 1, 1, (self._output(node),), ((0, 4),)),)

    def _concat(self, node: Node) -> tuple[Operator, ...]:
        read = [self._joined(name) for name in node.inputs if name in self._graph.tensors]
        origins = [origin for origin, _ in read]
        widest = self._widest(origins, all_settled=all(operator for _, operator in read))
        rescaled = [operator for origin, operator in read if operator and origin != widest]
        if len(set(origins)) > 1:
            self.doubtful[node.outputs[0]] = tuple([each for origin, each in read if each and origin == widest])
        axis = number(node, "axis", 1)
        options = present((0, 4, 0 if axis == 0 else 1))
        operands = self._operands(node)
        return *rescaled, operator_of("CONCATENATION", len(node.inputs), 1, (*operands, self._output(node)), options)

    def _widest(self, origins: list[str], *, all_settled: bool) -> str | None:
        """The input of a concatenation whose range is assumed to contain the ranges of the others.

        Among inputs without negative values, one has the largest range, and a concatenation of a concatenation usually
        adds little to it. In other cases no single input has the whole range.
        """
        origins = [each for each in origins if not self._is_prescribed(each)]
        if len(set(origins)) <= 1:
            return origins[0] if origins else None
        made = [self._makers[name].op_type if name in self._makers else "" for name in origins]
        if "Concat" in made and not all_settled:
            return origins[made.index("Concat")]
        return origins[-1] if all_settled and _NOT_NEGATIVE.issuperset(made) else None

    def _is_rescaled(self, tensor: str) -> bool:
        """Whether a MAXIMUM puts a QUANTIZE before an activation that it reads."""
        return tensor in self._graph.tensors and self.is_settled(tensor)

    def _is_prescribed(self, tensor: str) -> bool:
        """Whether an operator prescribes the scale of an activation, or of the one that it is rearranged from."""
        maker = self._makers.get(self._scale_of(tensor))
        return maker is not None and maker.op_type in _PRESCRIBED

    def _joined(self, tensor: str) -> tuple[str, Operator | None]:
        """The tensor whose range decides the scale of a concatenation's input, and its QUANTIZE if that is settled."""
        found = self._joins.get(tensor)
        if found is None:
            rescaled = self.rescaled(tensor) if self.is_settled(tensor) else None
            found = self._joins[tensor] = self._scale_of(tensor), rescaled
        return found

    def _scale_of(self, tensor: str) -> str:
        """The tensor whose range decides an activation's scale."""
        while tensor in self._makers and self._makers[tensor].op_type in ONNX_OPERATORS:
            tensor = self._makers[tensor].inputs[0]
        return tensor

    def _inner(self, tensor: str) -> int:
        """Length of an activation's name inside a file."""
        maker = self._makers.get(tensor)
        ending = len("_output_nhwc") if maker is not None and maker.op_type in _ENDS_NHWC else 0
        return self._layer(tensor) + ending

    def _resize(self, node: Node) -> tuple[Operator, ...]:
        name, mode = self._layer(node.outputs[0]), text(node, "mode", "nearest")
        way = text(node, "coordinate_transformation_mode", "half_pixel")
        aligned, half = int(way == "align_corners"), int(way in ("half_pixel", "pytorch_half_pixel"))
        size, made = Constant(name + len("_resize_size"), 1, 8), self._output(node, "_output_nhwc")
        if mode == "linear":
            return (operator_of("RESIZE_BILINEAR", 2, 1, (size, made), present((2, 1, aligned), (3, 1, half))),)
        return (operator_of("RESIZE_NEAREST_NEIGHBOR", 2, 1, (size, made), present((0, 1, aligned))),)

    def _transpose(self, node: Node) -> tuple[Operator, ...]:
        if numbers(node, "perm", 4, 0) == (0, 2, 3, 1):
            return ()  # maps are NHWC already
        name, rank = self._layer(node.outputs[0]), len(self._shape(node.outputs[0]))
        return (operator_of("TRANSPOSE", 2, 1, (Constant(name + len("_perm"), 1, 4 * rank), self._output(node)), ()),)

    def _split(self, node: Node) -> tuple[Operator, ...]:
        name = self._layer(node.outputs[0])
        operators = []
        for made in node.outputs:
            rank = len(self._shape(made))
            begin, size = (
                Constant(name + len("_split_begin"), 1, 4 * rank),
                Constant(name + len("_split_size"), 1, 4 * rank),
            )
            operators.append(operator_of("SLICE", 3, 1, (begin, size, Activation(self._layer(made), rank)), None))
        return tuple(operators)

    def _slice(self, node: Node) -> tuple[Operator, ...]:
        source, made = node.inputs[0], node.outputs[0]
        group = self._parts.get(made)
        if group is not None:
            name = Constant(self._layer(source) + len("_qkv_split_axis"), 1, 4)
            parts = tuple(Activation(self._layer(each), len(self._shape(each))) for each in group)
            return (operator_of("SPLIT", 2, len(parts), (name, *parts), ((0, 4),)),) if made == group[0] else ()
        rank, layer = len(self._shape(made)), self._layer(made)
        if len(node.inputs) > 4:
            ends = ("begin", "end", "strides")
            constants = [Constant(layer + len(f"_stridedslice_{end}"), 1, 4 * rank) for end in ends]
            return (operator_of("STRIDED_SLICE", 4, 1, (*constants, Activation(layer, rank)), ()),)
        places = [Constant(layer + len(ending), 1, 4 * rank) for ending in ("_slice_begin", "_slice_size")]
        return (operator_of("SLICE", 3, 1, (*places, Activation(layer, rank)), None),)

    def _equal_parts(self) -> dict[str, tuple[str, ...]]:
        """Output of a Slice -> outputs of all Slices that divide its input equally along one axis, if there are any."""
        sliced: dict[str, list[str]] = {}
        for node in self._graph.nodes:
            if node.op_type == "Slice" and len(node.inputs) <= 4:
                sliced.setdefault(node.inputs[0], []).append(node.outputs[0])
        found: dict[str, tuple[str, ...]] = {}
        for source, made in sliced.items():
            whole = self._shape(source)
            counts = {prod(whole) / prod(self._shape(each)) for each in made}
            count = int(min(counts))
            if len(counts) == 1 and count in counts and count > 1 and len(made) % count == 0:
                for first in range(0, len(made), count):
                    group = tuple(made[first : first + count])
                    found |= dict.fromkeys(group, group)
        return found

    def _other(self, node: Node) -> tuple[Operator, ...]:
        made = tuple(
            Activation(self._layer(name), len(self._shape(name)))
            for name in node.outputs
            if name in self._graph.tensors
        )
        operands = self._operands(node)
        reads = len(operands) + sum(name in self._graph.tensors for name in node.inputs)
        return (operator_of(node.op_type.upper(), reads, len(made), (*operands, *made), None),)


_WEIGHTED: Mapping[str, Callable[[Itemised, Node], tuple[Operator, ...]]] = {
    "Conv": Itemised._conv,
    "Gemm": Itemised._gemm,
    "ConvTranspose": Itemised._conv_transpose,
}
_PLAIN: Mapping[str, Callable[[Itemised, Node], tuple[Operator, ...]]] = {
    **dict.fromkeys(_BINARY, Itemised._binary),
    **dict.fromkeys(_BARE, Itemised._bare),
    **dict.fromkeys(_MEANS, Itemised._mean),
    **dict.fromkeys(_SHAPES, Itemised._reshape),
    **dict.fromkeys(("MaxPool", "AveragePool"), Itemised._pool),
    **dict.fromkeys(("Resize", "Upsample"), Itemised._resize),
    "Concat": Itemised._concat,
    "Softmax": Itemised._softmax,
    "Split": Itemised._split,
    "Slice": Itemised._slice,
    "Transpose": Itemised._transpose,
}
