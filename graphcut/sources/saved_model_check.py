"""Check a SavedModel before TensorFlow loads it: loading and running it must not have side effects.

1. A SavedModel is a program: its graph may contain operators that read and write files or call Python, and TensorFlow
   runs parts of it while it loads. So the file is read as plain data first (:func:`refuse`).
2. Refused are models of TensorFlow 1, tables and assets (they run their own initialisation when they are loaded),
   objects that save and restore themselves, and operators that the chosen signature calls and that have side effects or
   read anything but their inputs.
3. Only a worker calls this: it needs TensorFlow's messages and its list of operators.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from graphcut.errors import ModelError, UsageError, setting
from graphcut.sources.library_errors import foreign

DEFAULT = "serving_default"
_INITIALISATION = "__saved_model_init_op"
_KINDS = frozenset({"user_object", "variable", "function", "bare_concrete_function", "constant", "captured_tensor"})
_PLUMBING = frozenset(
    {"VarHandleOp", "ReadVariableOp", "DisableCopyOnRead", "PartitionedCall", "StatefulPartitionedCall", "NoOp"}
)
"""Stateful operators that are allowed, because any model has them."""
_REACHING = frozenset({"ReadFile", "MatchingFiles", "PyFuncStateless", "DebugIdentity", "DebugNumericSummary"})
"""Operators that TensorFlow lists as stateless although they access more than their inputs."""

_LOOPS = frozenset({"While", "StatelessWhile"})

_CURE = "export the model to ONNX or to a .keras file where its code is"


def read(folder: Path, subject: str) -> Any:
    """The message in ``saved_model.pb``.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    message = saved_model_pb2.SavedModel()
    with foreign(subject, "reading saved_model.pb, which is damaged or truncated,"):
        message.ParseFromString((folder / "saved_model.pb").read_bytes())
    if len(message.meta_graphs) != 1:
        raise ModelError(f"{subject} contains {len(message.meta_graphs)} graphs instead of one", "save the model again")
    return message.meta_graphs[0]


def signature(graph: Any, subject: str, wanted: str | None = None) -> str:
    """The name of the signature to export: the requested one, else "serving_default" or the only one.

    Raises:
        ModelError: there is no signature, or the choice is ambiguous.
        UsageError: the requested signature does not exist.
    """
    names = sorted(name for name in graph.signature_def if name != _INITIALISATION)
    if wanted is not None:
        if wanted in names:
            return wanted
        raise UsageError(f"{subject} has no signature {wanted!r}", f"it has {', '.join(names) or 'none'}")
    if DEFAULT in names or len(names) == 1:
        return DEFAULT if DEFAULT in names else names[0]
    if names:
        raise ModelError(
            f"{subject} has several signatures ({', '.join(names)}), none of them {DEFAULT!r}",
            f"choose one: {setting('signature', names[0])}",
        )
    raise ModelError(
        f"{subject} has no signature, so its inputs and outputs are unknown",
        "save it with model.export(FOLDER), or with tf.saved_model.save(..., signatures=...)",
    )


def refuse(graph: Any, chosen: str, subject: str) -> None:
    """Refuse everything listed in statement 2.

    Args:
        graph: see :func:`read`.
        chosen: the signature.
        subject: what to call the model in errors.

    Raises:
        ModelError: names the object or operator.
    """
    if not graph.object_graph_def.nodes:
        raise ModelError(f"{subject} was saved by TensorFlow 1, and loading it would run its own initialisation", _CURE)
    for node in graph.object_graph_def.nodes:
        kind = node.WhichOneof("kind")
        if kind not in _KINDS:
            raise ModelError(
                f"{subject} contains a table or file ({kind}), which is initialised by its own code", _CURE
            )
        if node.saveable_objects or node.registered_saver:
            raise ModelError(f"{subject} contains a {kind} that restores itself with its own code", _CURE)
    for place, node in _reachable(graph, chosen):
        if node.op in _LOOPS:
            raise ModelError(
                f"{subject}: operator {node.name!r} ({node.op}) in {place} is a loop, probably of a recurrent layer",
                "save the model with unroll=True in its recurrent layers, or split the part before them",
            )
        if node.op not in _PLUMBING and (node.op in _REACHING or _stateful(node.op)):
            raise ModelError(
                f"{subject}: operator {node.name!r} ({node.op}) in {place} has side effects or reads more than its "
                f"inputs",
                _CURE,
            )


def _stateful(op: str) -> bool:
    """Whether an operator is stateful; one that TensorFlow does not know is custom and counts as stateful."""
    from tensorflow.python.framework import op_def_registry

    definition = op_def_registry.get(op)
    return definition is None or definition.is_stateful


def _reachable(graph: Any, chosen: str) -> Iterable[tuple[str, Any]]:
    """Every operator that the signature's outputs need, with the name of the function it is in."""
    functions = {function.signature.name: function for function in graph.graph_def.library.function}
    nodes = {node.name: node for node in graph.graph_def.node}
    waiting = [output.name.split(":")[0] for output in graph.signature_def[chosen].outputs.values()]
    seen: set[str] = set()
    called: list[str] = []
    while waiting:
        name = waiting.pop()
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        yield f"signature {chosen}", nodes[name]
        waiting += [each.removeprefix("^").split(":")[0] for each in nodes[name].input]
        called += _calls(nodes[name])
    entered: set[str] = set()
    while called:
        name = called.pop()
        if name in entered or name not in functions:
            continue
        entered.add(name)
        for node in functions[name].node_def:
            yield f"function {name}", node
            called += _calls(node)


def _calls(node: Any) -> list[str]:
    """The functions that an operator calls, branches to or loops over."""
    named = [value.func.name for value in node.attr.values() if value.WhichOneof("value") == "func"]
    return [*named, *(each.name for value in node.attr.values() for each in value.list.func), node.op]
