"""Turn an ONNX message into a Net: checked, one opset, static inputs, batch 1, separate weights, folded constants."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np
from onnx import ModelProto, NodeProto, ValueInfoProto, numpy_helper

from graphcut.errors import ModelError, UsageError, first_line, setting
from graphcut.graph import native, protobuf
from graphcut.graph.branches import take_branches
from graphcut.graph.budget import refuse_heavy, refuse_huge_inputs, refuse_many
from graphcut.graph.geometry import refuse_misfits, refuse_misshapen
from graphcut.graph.net import Net, topological
from graphcut.graph.passes.constants import fold
from graphcut.graph.protobuf import NumpyArray
from graphcut.graph.qdq import Range, strip_quantisation
from graphcut.graph.restate import restate
from graphcut.graph.to_float32 import make_float32
from graphcut.graph.unsupported import (
    CONDITIONAL,
    refuse_broken_weights,
    refuse_quantised,
    refuse_recursive,
    refuse_unknown,
    refuse_unsplittable,
)
from graphcut.graph.wellformed import array_of
from graphcut.records import Node, Shape, Tensor

OLDEST_OPSET = 13
"""Older models are raised to ``RAISED_OPSET``. From opset 13 on, axes are inputs, and quantisation can be per axis."""
RAISED_OPSET = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """The result of :func:`enter`.

    Attributes:
        proto: the message that was read, with functions inlined and weights inside.
        net: with static shapes and folded constants, not rewritten yet.
        notes: notes for the user.
        resized: those of the notes that are about inputs whose size differs from the declared one.
        ranges: activation -> range given by the file, in models from quantisation-aware training.
        original: the model as exported, with large weights declared as external data and symbolic dimensions replaced
            by numbers; results are compared with it.
        weights: values of all weights in ``proto``.
        batch: the batch size that ``original`` is fixed to; that of ``net`` is 1.
        folded: how many nodes constant folding removed.
        raised_from: the opset that it was exported with, if it had to be raised.
        modules: tensor -> path of the PyTorch module that produces it, where the file gives one.
    """

    proto: ModelProto
    net: Net
    notes: tuple[str, ...]
    resized: tuple[str, ...]
    ranges: Mapping[str, Range]
    original: ModelProto
    weights: Mapping[str, NumpyArray]
    batch: int
    folded: int
    raised_from: int | None
    modules: Mapping[str, str]


def enter(proto: ModelProto, input_shapes: Mapping[str, Shape]) -> Ingested:
    """Check a model and make it editable; see :class:`Ingested`.

    Raises:
        ModelError: it cannot be split.
        UsageError: ``input_shapes`` names no input, or contradicts the file.
    """
    refuse_unsplittable(proto)
    refuse_recursive(proto)
    refuse_many(proto)
    if proto.functions:
        proto = _inlined(proto)
        refuse_unsplittable(proto)
    if any(node.op_type == CONDITIONAL for node in proto.graph.node):
        _take_branches(proto, input_shapes)
        refuse_unsplittable(proto)
    restate(proto)
    said = strip_quantisation(proto)
    notes = make_float32(proto)
    weights = _weights(proto)
    exported = _exported_inputs(_declared(proto, weights), input_shapes, notes)
    refuse_huge_inputs({tensor.name: tensor.shape for tensor in exported})
    nodes, protos = _named(proto)
    _refuse_twice_named(nodes, proto, weights)
    order = topological(nodes)
    _refuse_dangling(order, {*weights, *(tensor.name for tensor in exported)}, proto)
    refuse_broken_weights(order, weights)
    messages = [protos[node.name] for node in order]
    refuse_misshapen(order, {name: tuple(array.shape) for name, array in weights.items()})
    opset = exported_opset = protobuf.opset_of(proto)
    refuse_unknown(messages, opset)
    original = _original(proto, opset, messages, exported, weights)
    batch, inputs = _batch_one(exported, notes)
    raised: dict[str, NumpyArray] = {}
    if opset < OLDEST_OPSET:
        messages, raised = _raise_opset(proto, opset, messages, inputs, weights)
        notes.append(f"opset {opset} raised to {RAISED_OPSET}")
        opset = RAISED_OPSET
        order = [protobuf.node_record(message) for message in messages]
    net = Net(
        name=_graph_name(proto),
        opset=opset,
        nodes=order,
        inputs=inputs,
        outputs=[value.name for value in proto.graph.output],
        weights={**weights, **raised},
        protos=dict(zip((node.name for node in order), messages, strict=True)),
    )
    resized = _resized(_declared(proto, weights), exported)
    with _blamed_on(batch, resized):
        net.infer()
        refuse_misfits(net)
    refuse_heavy(net, batch)
    with _blamed_on(batch, resized):
        folded = fold(net)
        refuse_misfits(net)
        if resized:
            _require_one_result(proto, net)
    refuse_heavy(net, batch)
    refuse_quantised({node.name: node.op_type for node in net.nodes})
    _refuse_types(net)
    return Ingested(
        proto=proto,
        net=net,
        notes=(*resized, *notes),
        resized=resized,
        ranges=said,
        original=original,
        weights=weights,
        batch=batch,
        folded=folded,
        raised_from=exported_opset if exported_opset < opset else None,
        modules=_modules(messages),
    )


def _take_branches(proto: ModelProto, input_shapes: Mapping[str, Shape]) -> None:
    """Replace ``If`` nodes by the branches that are taken, in the message itself."""
    weights = _weights(proto)
    inputs = _exported_inputs(_declared(proto, weights), input_shapes, [])
    refuse_huge_inputs({tensor.name: tensor.shape for tensor in inputs})
    nodes, protos = _named(proto)
    take_branches(proto, nodes, protos, inputs, weights)


def _declared(proto: ModelProto, weights: Mapping[str, NumpyArray]) -> list[ValueInfoProto]:
    """The declarations of the inputs that are not weights."""
    return [value for value in proto.graph.input if value.name not in weights]


def _modules(messages: Sequence[NodeProto]) -> dict[str, str]:
    """Tensor -> module path, as torch.onnx writes it into the nodes' metadata.

    ``pkg.torch.onnx.name_scopes`` is a list such as ``['', 'layer1', 'layer1.0', 'conv2d_1']``: the modules from the
    outermost to the innermost, then the operator.
    """
    modules: dict[str, str] = {}
    for message in messages:
        for entry in message.metadata_props:
            scopes = re.findall(r"'([^']*)'", entry.value) if entry.key == "pkg.torch.onnx.name_scopes" else []
            if len(scopes) > 1 and scopes[-2]:
                modules |= {output: scopes[-2] for output in message.output if output}
    return modules


@contextmanager
def _blamed_on(batch: int, resized: Sequence[str]) -> Iterator[None]:
    """Attribute an error to the changed input size, where the user has changed one."""
    try:
        yield
    except ModelError as error:
        if resized:
            raise size_error(resized, error) from error
        if batch == 1:
            raise
        raise batch_error(batch) from error


def _require_one_result(proto: ModelProto, net: Net) -> None:
    """Raise ModelError where an input of another size turns one result into several.

    A Reshape to (-1, 512) reads a larger map as more samples: nothing fails, but every result is wrong.
    """
    for value in proto.graph.output:
        declared, found = _declared_shape(value), net.shape(value.name)
        if declared and found and len(declared) == len(found) and declared[0] in (1, None) and found[0] != 1:
            raise ModelError(f"output {value.name!r} would have the shape {_shown(found)}, more than one result")


def size_error(resized: Sequence[str], error: ModelError) -> UsageError:
    """The error for a model that does not allow the shapes that the user gives its inputs."""
    return UsageError(
        f"{' and '.join(resized)}, which the model does not allow: {error.message}",
        f"omit {setting('input_shapes')}, or export the model with this size",
    )


def batch_error(batch: int) -> ModelError:
    """The error for a model that cannot be run with batch 1."""
    return ModelError(f"the model only works with batch size {batch}", "export it with batch size 1")


def _graph_name(proto: ModelProto) -> str:
    return proto.graph.name or "model"


def _weights(proto: ModelProto) -> dict[str, NumpyArray]:
    weights: dict[str, NumpyArray] = {}
    for tensor in proto.graph.initializer:
        array = array_of(tensor, f"weight {tensor.name!r}")
        array.setflags(write=False)
        weights[tensor.name] = array
    return weights


def _exported_inputs(declared: Sequence[ValueInfoProto], given: Mapping[str, Shape], notes: list[str]) -> list[Tensor]:
    """The inputs as exported, with symbolic dimensions replaced by numbers (a symbolic batch size by 1)."""
    names = [value.name for value in declared]
    for name in given:
        if name not in names:
            close = get_close_matches(name, names, n=1) or names
            raise UsageError(f"the model has no input {name!r}", f"its inputs are {', '.join(close)}")
    tensors = []
    for value in declared:
        shape = _declared_shape(value)
        fixed = _given_shape(value.name, shape, given[value.name]) if value.name in given else _fixed(value.name, shape)
        if shape and shape[0] is None and fixed[0] == 1 and "batch fixed to 1" not in notes:
            notes.append("batch fixed to 1")
        elem_type = value.type.tensor_type.elem_type
        tensors.append(Tensor(name=value.name, shape=fixed, dtype=protobuf.dtype_name(elem_type)))
    return tensors


def _declared_shape(value: ValueInfoProto) -> tuple[int | None, ...] | None:
    """Dimensions, None for symbolic ones (or those that are not positive); None if the rank is unknown."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(
        int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value > 0 else None
        for dim in value.type.tensor_type.shape.dim
    )


def _fixed(name: str, shape: tuple[int | None, ...] | None) -> Shape:
    if shape is None:
        raise ModelError(
            f"input {name!r} declares no shape", f"set it: {setting('input_shapes', f'{name}:1x3x224x224')}"
        )
    fixed = tuple(1 if axis == 0 and size is None else size for axis, size in enumerate(shape))
    if any(size is None for size in fixed):
        shown = _shown(shape)
        example = "x".join(str(size) if size else ("3" if axis == 1 else "224") for axis, size in enumerate(fixed))
        raise ModelError(
            f"input {name!r} has an open shape ({shown})", f"set it: {setting('input_shapes', f'{name}:{example}')}"
        )
    return tuple(size for size in fixed if size is not None)


def _given_shape(name: str, shape: tuple[int | None, ...] | None, given: Shape) -> Shape:
    if (shape is not None and len(shape) != len(given)) or any(size < 1 for size in given):
        raise UsageError(
            f"input {name!r} cannot have the shape {_shown(given)}: the model declares {_shown(shape or ())}",
            "give the same number of dimensions, each at least 1",
        )
    return given


def _resized(declared: Sequence[ValueInfoProto], exported: Sequence[Tensor]) -> tuple[str, ...]:
    """A note for each input whose size, apart from the batch, differs from the declared one."""
    notes = []
    for value, tensor in zip(declared, exported, strict=True):
        shape = _declared_shape(value) or tensor.shape
        if any(size not in (None, new) for size, new in zip(shape[1:], tensor.shape[1:], strict=True)):
            notes.append(
                f"input {value.name!r} has the shape {_shown(tensor.shape)} instead of the declared {_shown(shape)}"
            )
    return tuple(notes)


def _shown(shape: Sequence[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)


def _batch_one(exported: Sequence[Tensor], notes: list[str]) -> tuple[int, list[Tensor]]:
    """The inputs with batch size 1, and the batch size that they had: that of the rank-4 inputs, if it is above 1."""
    batches = {tensor.shape[0] for tensor in exported if len(tensor.shape) == 4}
    batch = max(batches, default=1)
    if batch == 1 or len(batches) > 1:
        return 1, list(exported)
    notes.append(f"batch fixed to 1 (the file says {batch})")
    fixed = [
        replace(tensor, shape=(1, *tensor.shape[1:])) if tensor.shape and tensor.shape[0] == batch else tensor
        for tensor in exported
    ]
    return batch, fixed


def _named(proto: ModelProto) -> tuple[list[Node], dict[str, NodeProto]]:
    """The nodes as records and messages, each with a unique name and in the default domain."""
    taken: set[str] = set()
    records, protos = [], {}
    for message in proto.graph.node:
        base = message.name or f"{message.op_type}_{message.output[0] if message.output else 'nothing'}"
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        if message.name != name or message.domain:
            message.name = name
            message.ClearField("domain")
        records.append(protobuf.node_record(message))
        protos[name] = message
    return records, protos


def _refuse_twice_named(nodes: Sequence[Node], proto: ModelProto, weights: Mapping[str, NumpyArray]) -> None:
    """Raise ModelError where two of the inputs, weights and node outputs share a name."""
    held = Counter([value.name for value in proto.graph.input if value.name not in weights])
    held.update(tensor.name for tensor in proto.graph.initializer)
    twice = next((name for name, count in held.items() if count > 1), None)
    if twice is not None:
        raise ModelError(
            f"two inputs or weights have the name {twice!r}", "the file is not valid ONNX; export it again"
        )
    for node in nodes:
        for name in node.outputs:
            if name in held:
                what = "a weight" if name in weights else "an input"
                raise ModelError(
                    f"node {node.name!r} ({node.op_type}) produces {name!r}, which is also the name of {what} of the "
                    f"model",
                    "the file is not valid ONNX; export it again",
                )


def _refuse_dangling(nodes: Sequence[Node], available: set[str], proto: ModelProto) -> None:
    made = {name for node in nodes for name in node.outputs} | available
    for node in nodes:
        for name in node.inputs:
            if name and name not in made:
                raise ModelError(
                    f"node {node.name!r} ({node.op_type}) reads {name!r}, which no node produces",
                    "the file is not valid ONNX; export it again",
                )
    for value in proto.graph.output:
        if value.name not in made:
            raise ModelError(
                f"output {value.name!r} is not produced by any node", "the file is not valid ONNX; export it again"
            )


def _original(
    proto: ModelProto,
    opset: int,
    nodes: Sequence[NodeProto],
    inputs: Sequence[Tensor],
    weights: Mapping[str, NumpyArray],
) -> ModelProto:
    """The model as exported, with its large weights declared as external data (:class:`Ingested`)."""
    outputs = [protobuf.untyped(value.name) for value in proto.graph.output]
    try:
        original = protobuf.build(
            _graph_name(proto), opset, nodes, inputs, outputs, weights, external_above=protobuf.SMALL_ELEMENTS
        )
        native.check(protobuf.skeleton_of(original, outputs=False))
    except native.NativeError as error:
        raise ModelError(f"the model is not valid ONNX: {first_line(error)}", "export it again") from error
    return original


def _inlined(proto: ModelProto) -> ModelProto:
    try:
        return native.inlined(proto)
    except native.NativeError as error:
        raise ModelError(
            f"local functions cannot be inlined: {first_line(error)}", "export the model without functions"
        ) from error


def _raise_opset(
    proto: ModelProto,
    opset: int,
    nodes: Sequence[NodeProto],
    inputs: Sequence[Tensor],
    weights: Mapping[str, NumpyArray],
) -> tuple[list[NodeProto], dict[str, NumpyArray]]:
    """The nodes in ``RAISED_OPSET`` and the small weights that the conversion added."""
    outputs = list(proto.graph.output)
    old = protobuf.build(
        _graph_name(proto), opset, nodes, inputs, outputs, weights, weights_as_inputs_above=protobuf.SMALL_ELEMENTS
    )
    try:
        new = native.converted(old, RAISED_OPSET)
    except native.NativeError as error:
        raise ModelError(
            f"opset {opset} cannot be raised to {RAISED_OPSET}: {first_line(error)}",
            f"export the model with opset {RAISED_OPSET}",
        ) from error
    added = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in new.graph.initializer if tensor.name not in weights
    }
    _, protos = _named(new)
    return list(protos.values()), added


def _refuse_types(net: Net) -> None:
    for tensor in net.inputs.values():
        if tensor.dtype != str(np.dtype(np.float32)):
            raise ModelError(
                f"input {tensor.name!r} has the type {tensor.dtype}",
                "export the model with float32 inputs and activations",
            )
