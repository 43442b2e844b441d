"""The worker's side of the PyTorch sources; the only module that imports torch.

Steps of one export, each taking the same argument (a dict; ``subject``, ``opset``, ``target``, and what the first step
needs): one of :func:`load_program` and :func:`load_target`, then :func:`convert`, :func:`check` and :func:`write`.

1. A ``.pt2`` file has been checked (:mod:`graphcut.sources.pt2_check`); pickles in it are read by PyTorch's restricted
   reader, and its guards are discarded.
2. A target is the user's own code: its module is imported here, from the current directory or an installed package,
   and the factory is called without arguments. Random weights come from a fixed seed.
3. Shapes are static for a target. The exporter based on torch.export is tried first, then the older one, which traces a
   run. Both record which module a node comes from.
4. On a random input other than the one used for the export, the ONNX model gives the results of PyTorch within
   ``TOLERANCE`` times the largest value of each output.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from graphcut.errors import ModelError, UsageError, setting
from graphcut.graph.reference import Reference
from graphcut.sources import canonicalise
from graphcut.sources.library_errors import foreign

TOLERANCE = 1e-3
"""Folding batch normalisations into convolutions in float32 stays below 1e-5 in the models tried."""
NAMES = "pkg.torch.onnx.name_scopes"
"""The only metadata that is kept; the rest contains paths and lines of the user's code."""

_NAMELESS = re.compile(r"val_\d+")

_made: dict[str, Any] = {}


def load_program(argument: Mapping[str, Any]) -> None:
    """Read a ``.pt2`` file.

    Raises:
        ModelError: PyTorch cannot read it.
    """
    _prepare()
    import torch

    subject = argument["subject"]
    with foreign(subject, "torch.export.load"):
        program = torch.export.load(argument["path"])
    if getattr(program, "_guards_code", None):
        program._guards_code = []
    _made["program"] = program
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    names = [name for name in program.graph_signature.user_inputs if isinstance(name, str)]
    _made["names"] = names
    _made["inputs"] = [_example(values[name]) for name in names]


def load_target(argument: Mapping[str, Any]) -> None:
    """Import a module, call the factory in it and take the torch.nn.Module that it returns (statement 2).

    Raises:
        UsageError: there is no such module or factory, or the inputs do not fit its forward().
        ModelError: the module or factory fails, or returns something else.
    """
    _prepare()
    sys.path.insert(0, str(argument["folder"]))
    subject = str(argument["subject"])
    import torch

    torch.manual_seed(0)
    found = _looked_up(subject, *subject.split(":"))
    model = _module(subject, found)
    with foreign(subject, "preparing it"):
        model = model.cpu().float().eval()
    shapes: Mapping[str, Sequence[int]] = argument["shapes"]
    generator = torch.Generator().manual_seed(1)
    inputs = {name: torch.randn(tuple(shape), generator=generator) for name, shape in shapes.items()}
    positional, named = _made["arguments"] = _arguments(subject, model, inputs)
    _made["model"], _made["names"] = model, list(named or inputs)
    shown = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
    with foreign(subject, f"running it on {shown}"), torch.no_grad():
        model(*positional, **named)


def convert(argument: Mapping[str, Any]) -> tuple[str, ...]:
    """Convert the loaded model to ONNX; returns notes for the user."""
    import torch

    subject = argument["subject"]
    options = {
        "dynamo": True,
        "opset_version": argument["opset"],
        "external_data": False,
        "optimize": True,
        "verbose": False,
        "input_names": _made["names"],
    }
    if "program" in _made:
        with foreign(subject, "torch.onnx.export", innermost=True):
            proto = torch.onnx.export(_made["program"], **options).model_proto
        return _settled(proto)
    positional, named = _made["arguments"]
    try:
        with foreign(subject, "torch.onnx.export", innermost=True):
            proto = torch.onnx.export(_made["model"], positional, kwargs=named, **options).model_proto
        return _settled(proto)
    except ModelError as error:
        first = error
    part = Path(argument["target"]).with_suffix(".traced")
    try:
        torch.onnx.export(
            _made["model"],
            positional,
            str(part),
            kwargs=named,
            dynamo=False,
            opset_version=17,
            input_names=_made["names"],
        )
        import onnx_ir

        proto = onnx_ir.to_proto(onnx_ir.load(part))
    except (
        Exception
    ) as error:  # the older exporter raises arbitrary exceptions; the user gets the reason of the newer one
        traceback.print_exception(error)
        raise first from error
    part.unlink()
    reason = first.message.removeprefix(f"{subject}: torch.onnx.export failed: ")
    return (*_settled(proto), f"exported by tracing one run, so branches that depend on values are fixed ({reason})")


def check(argument: Mapping[str, Any]) -> float | None:
    """Compare the ONNX model with PyTorch on a random input (statement 4).

    Returns:
        The largest difference, relative to the largest value of that output; None where a shape is open.

    Raises:
        ModelError: they differ.
    """
    import torch

    subject, names = argument["subject"], _made["names"]
    generator = torch.Generator().manual_seed(2)
    with foreign(subject, "running it in PyTorch"), torch.no_grad():
        if "program" in _made:
            inputs = [None if value is None else _like(value, generator) for value in _made["inputs"]]
            if any(value is None for value in inputs):
                return None
            positional, named = torch.utils._pytree.tree_unflatten(inputs, _made["program"].call_spec.in_spec)
            result = _made["program"].module()(*positional, **named)
        else:
            positional, named = _made["arguments"]
            positional = tuple(_like(value, generator) for value in positional)
            named = {name: _like(value, generator) for name, value in named.items()}
            inputs = [*positional, *(named[name] for name in names if name in named)]
            result = _made["model"](*positional, **named)
    wanted = [value.detach().numpy() for value in torch.utils._pytree.tree_leaves(result) if torch.is_tensor(value)]
    part = Path(argument["target"])
    canonicalise.write_file(_made["proto"], part, subject)
    reference = Reference(part)
    feeds = {name: value.detach().numpy() for name, value in zip(names, inputs, strict=True) if value is not None}
    got = reference.run(feeds)
    return _worst(subject, wanted, [got[name] for name in reference.outputs])


def write(argument: Mapping[str, Any]) -> None:
    """Write the ONNX file to ``target``.

    Raises:
        ModelError: the model is too large for one file.
        OutputError: the disk is full or the folder not writable.
    """
    canonicalise.write_file(_made.pop("proto"), Path(argument["target"]), argument["subject"])


def _prepare() -> None:
    """Set what torch reads at import and when it loads a file (statement 1)."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
    warnings.simplefilter("ignore")


def _looked_up(subject: str, module_name: str, path: str) -> Any:
    """The object that a target refers to.

    Raises:
        UsageError: there is no such module or attribute.
        ModelError: importing it fails.
    """
    try:
        with foreign(subject, f"importing {module_name}"):
            module = importlib.import_module(module_name)
    except SystemExit as error:
        raise ModelError(
            f"{subject}: importing {module_name} exits the program", "move its script code into a main() function"
        ) from error
    except ModelError as error:
        missing = error.__cause__.name if isinstance(error.__cause__, ModuleNotFoundError) else None
        if missing is not None and (module_name == missing or module_name.startswith(f"{missing}.")):
            raise UsageError(
                f"{subject}: there is no module {missing!r}, neither in the current directory nor installed",
                "run graphcut in the folder of the module, or install its package",
            ) from error
        raise
    found = module
    for name in path.split("."):
        if not hasattr(found, name):
            close = get_close_matches(name, [each for each in dir(found) if not each.startswith("_")], n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "check the name"
            raise UsageError(f"{subject}: {module_name} has no {name!r}", hint)
        found = getattr(found, name)
    return found


def _module(subject: str, found: Any) -> Any:
    """The torch.nn.Module that a factory returns, or the target itself if it is a module.

    Raises:
        UsageError: it cannot be called.
        ModelError: it fails, or returns something else.
    """
    import torch

    if isinstance(found, torch.nn.Module):
        return found
    if not callable(found):
        raise UsageError(f"{subject} is a {type(found).__name__}, which cannot be called", "name a function or a class")
    try:
        with foreign(subject, "calling it without arguments"):
            made = found()
    except SystemExit as error:
        raise ModelError(f"{subject}: calling it exits the program", "return the model instead") from error
    if not isinstance(made, torch.nn.Module):
        raise ModelError(f"{subject} returned a {type(made).__name__}, not a torch.nn.Module", "return the model")
    return made


def _arguments(subject: str, model: Any, inputs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inputs for forward(): by name where forward() has all the names, in order where it has none of them.

    Raises:
        UsageError: forward() has only some of the names, or needs another number of inputs.
    """
    parameters = inspect.signature(model.forward).parameters
    known = [name for name in inputs if name in parameters]
    wanted = [
        name
        for name, each in parameters.items()
        if each.default is each.empty
        and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    ]
    if known and len(known) == len(inputs) and set(wanted) <= set(known):
        return (), {name: inputs[name] for name in parameters if name in inputs}
    variable = any(each.kind == each.VAR_POSITIONAL for each in parameters.values())
    if known or (not variable and not len(wanted) <= len(inputs) <= len(parameters)):
        raise UsageError(
            f"{subject}: forward({', '.join(parameters)}) does not accept the inputs {', '.join(inputs)}",
            f"set the shape of {' and '.join(wanted) or 'each'}: {setting('input_shapes', 'NAME:1x3x224x224')}",
        )
    return tuple(inputs.values()), {}


def _example(value: Any) -> Any:
    """A tensor with the shape that an input of a program had at export; None if it is unknown."""
    import torch

    sizes = (
        [size if isinstance(size, int) else size.node.hint for size in value.shape] if torch.is_tensor(value) else []
    )
    if not torch.is_tensor(value) or None in sizes:
        return None
    return torch.empty(sizes, dtype=value.dtype)


def _like(value: Any, generator: Any) -> Any:
    import torch

    return torch.randn(tuple(value.shape), generator=generator).to(value.dtype)


def _worst(subject: str, wanted: Sequence[Any], got: Sequence[Any]) -> float:
    if len(wanted) != len(got):
        raise ModelError(
            f"{subject}: torch.onnx.export wrote {len(got)} of {len(wanted)} outputs",
            "return plain tensors from forward()",
        )
    worst = 0.0
    for number, (values, other) in enumerate(zip(wanted, got, strict=True), start=1):
        if values.shape != other.shape:
            raise ModelError(
                f"{subject}: torch.onnx.export changed the shape of output {number}",
                "export the model to ONNX in Python, and pass the ONNX file",
            )
        scale = float(np.abs(values).max(initial=0.0)) or 1.0
        error = float(np.abs(values.astype(np.float64) - other).max(initial=0.0)) / scale
        worst = max(worst, error)
        if not error <= TOLERANCE:
            raise ModelError(
                f"{subject}: after torch.onnx.export, output {number} differs from PyTorch's by {error:.1e} of its "
                "largest value",
                "remove random or value-dependent code from forward()",
            )
    return worst


def _settled(proto: Any) -> tuple[str, ...]:
    """Keep the graph and the modules of its nodes; drop paths and lines of the user's code."""
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.initializer):
        _keep_names(part)
    for part in (*proto.graph.input, *proto.graph.output):
        _keep_names(part)
    for part in (proto, proto.graph, *proto.graph.node):
        part.ClearField("doc_string")
    _settle_names(proto.graph)
    _made["proto"] = proto
    return ()


def _settle_names(graph: Any) -> None:
    """Name outputs after the modules that produce them, and unnamed tensors ("val_3") after their operators."""
    outputs = {value.name for value in graph.output}
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    names: dict[str, str] = {}
    for node in graph.node:
        scopes = [re.findall(r"'([^']*)'", entry.value) for entry in node.metadata_props if entry.key == NAMES]
        module = scopes[0][-2] if scopes and len(scopes[0]) > 1 else ""
        for name in node.output:
            wanted = name
            if name in outputs and module:
                wanted = module
            elif _NAMELESS.fullmatch(name):
                wanted = node.name.removeprefix("node_")
            if wanted not in taken:
                taken.add(wanted)
                names[name] = wanted
    canonicalise.rename(graph, names)


def _keep_names(part: Any) -> None:
    kept = [(entry.key, entry.value) for entry in part.metadata_props if entry.key == NAMES]
    del part.metadata_props[:]
    for key, value in kept:
        entry = part.metadata_props.add()
        entry.key, entry.value = key, value
