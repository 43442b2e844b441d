"""Check a ``.pt2`` file before PyTorch reads it: reading it must not run code from the file.

1. An ExportedProgram is a zip archive: the graph as JSON, weights as raw bytes, example inputs as a pickle. PyTorch
   trusts all of it: it evaluates shape expressions, looks up operators by name in its own modules, executes guards and
   generates Python from the names in the graph. So the JSON is checked first: operators belong to PyTorch's tensor
   library, expressions are arithmetic, and all other text is plain names.
2. Pickles are only read by PyTorch's restricted reader, which creates tensors and nothing else
   (:mod:`graphcut.sources.torch_worker` forces it); other weights, compiled code and custom objects are refused here.
3. Nothing is imported or executed here; PyTorch does not have to be installed.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graphcut.errors import ModelError

SAVE = "torch.export.save(torch.export.export(model.eval(), (example,)), 'model.pt2')"
_AGAIN = f"save it again: {SAVE}"
_MOST_BYTES = 2**30
_OLD_GRAPH = "serialized_exported_program.json"
_NEW_GRAPH = re.compile(r"models/[^/]+\.json$")
_KNOWN = re.compile(
    r"(models/[^/]+\.json|data/(weights|constants|sample_inputs)/[^/]+|extra(_files)?/.*|\.data/\w+|\.format_version"
    r"|archive_format|archive_version|byteorder|version|\.storage_alignment|serialized_[a-z_]+\.(pt|json))$"
)
_TARGET = re.compile(
    r"torch\.ops\.aten\.(?!from_file\b)[a-z_0-9]+(\.[A-Za-z_0-9]+)?"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|neg|pow|getitem|eq|ne|lt|le|gt|ge|and_|or_)"
    r"|torch\.sym_(sum|min|max|int|float|not|ite)|math\.(ceil|floor|trunc)"
)
_EXPRESSION = re.compile(
    r"(?:Symbol\('[suz]\d+'(?:, (?:positive|nonnegative|negative|integer|real)=(?:True|False))*\)|[suz]\d+"
    r"|Add|Mul|Pow|Integer|Rational|Max|Min|Mod|FloorDiv|CleanDiv|CeilDiv|PythonMod|Eq|Ne|Lt|Le|Gt|Ge|True|False"
    r"|[\d\s+*/(),<>=.-])*"
)
_NAME = re.compile(r"[\w.:+ ><-]*")
_SPEC_TYPES = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})
# Text about the model, which PyTorch parses but does not look up or execute.
_FREE = frozenset({"stack_trace", "nn_module_stack", "torch_fn", "from_node", "custom", "guards_code", "seq_nr"})


def check(path: Path, subject: str) -> None:
    """Check a file (see the module docstring).

    Raises:
        ModelError: it is not an ExportedProgram, is damaged, or contains more than a graph and its weights.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_archive(archive, subject)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        what = "is empty" if path.stat().st_size == 0 else "is not a .pt2 file, or it is truncated"
        raise ModelError(f"{subject} {what}", _AGAIN) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{subject} is damaged: its graph is not JSON", _AGAIN) from error
    except OSError as error:
        raise ModelError(f"{subject} cannot be read ({error.strerror or error})", "check the path") from error


def _check_archive(archive: zipfile.ZipFile, subject: str) -> None:
    entries = {_bare(info.filename): info for info in archive.infolist() if not info.is_dir()}
    if any("data.pkl" in name for name in entries):
        raise ModelError(
            f"{subject} is a Python pickle or a TorchScript file, whose code would run when it is read", _AGAIN
        )
    graphs = [name for name in entries if name == _OLD_GRAPH or _NEW_GRAPH.match(name)]
    if not graphs:
        raise ModelError(f"{subject} is a zip archive without an ExportedProgram", _AGAIN)
    if len(graphs) > 1:
        raise ModelError(f"{subject} contains {len(graphs)} programs", "save one program per file")
    for name in sorted(entries):
        if not _KNOWN.match(name):
            compiled = "aotinductor" in name
            what = "compiled code" if compiled else "an unexpected file"
            raise ModelError(f"{subject} contains {what} ({name})", _AGAIN)
        if name.endswith("_config.json"):
            _check_payloads(_read(archive, entries[name], subject), subject)
    program = _read(archive, entries[graphs[0]], subject)
    if not isinstance(program, dict) or not isinstance(program.get("graph_module"), dict):
        raise ModelError(f"{subject} is damaged: it contains no graph", _AGAIN)
    _check_nodes(program, subject)
    _check_words(program, subject)


def _bare(name: str) -> str:
    """An entry's name without the top folder that PyTorch adds; paths that leave the archive are refused."""
    if name.startswith("/") or ".." in name.split("/"):
        return "../" + name
    return name if name.startswith("serialized_") or "/" not in name else name.split("/", maxsplit=1)[1]


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, subject: str) -> Any:
    if info.file_size > _MOST_BYTES:
        raise ModelError(f"{subject}: {info.filename} is larger than {_MOST_BYTES >> 30} GiB", _AGAIN)
    return json.loads(archive.read(info))


def _check_payloads(config: Any, subject: str) -> None:
    entries = config.get("config") if isinstance(config, dict) else None
    if not isinstance(entries, dict):
        raise ModelError(f"{subject} is damaged: it does not list its weights", _AGAIN)
    for name, entry in entries.items():
        place = str(entry.get("path_name", "")) if isinstance(entry, dict) else ""
        if not place.startswith(("weight_", "tensor_")) or "/" in place:
            raise ModelError(f"{subject}: {name!r} is a Python object, not a tensor", "export a model of tensors only")
        if entry.get("use_pickle"):
            raise ModelError(f"{subject}: weight {name!r} is a Python pickle, not a plain tensor", "use plain tensors")
        device = (entry.get("tensor_meta") or {}).get("device") or {}
        if device.get("type", "cpu") != "cpu":
            raise ModelError(
                f"{subject}: weight {name!r} is on device {device.get('type')!r}",
                "call model.cpu() before torch.export.export",
            )


def _check_nodes(program: dict[str, Any], subject: str) -> None:
    for node in _nodes(program):
        target, name = str(node["target"]), str(node.get("name") or "")
        place = _module(node) or name
        if _TARGET.fullmatch(target) is None:
            if "quantized" in target or "torchao" in target:
                raise ModelError(
                    f"{subject}: layer {place!r} ({target}) is already quantised", "export the float model"
                )
            raise ModelError(
                f"{subject}: layer {place!r} calls {target[:80]!r}, which is not one of PyTorch's own tensor operators",
                "export the model without it",
            )
        arguments = {each.get("name"): each.get("arg") for each in node["inputs"] if isinstance(each, dict)}
        training = arguments.get("training" if "batch_norm" in target else "train")
        if ("batch_norm" in target or "dropout" in target) and training == {"as_bool": True}:
            raise ModelError(
                f"{subject}: layer {place!r} was exported for training", f"call model.eval() first; {SAVE}"
            )


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every operator of the graph and of its inner graphs."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if isinstance(part.get("target"), str) and isinstance(part.get("inputs"), list):
                yield part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def _module(node: dict[str, Any]) -> str:
    """The path of the module that an operator is in."""
    metadata = node.get("metadata")
    stack = str(metadata.get("nn_module_stack", "")) if isinstance(metadata, dict) else ""
    parts = stack.split(";")[-1].split(",")
    return parts[1] if len(parts) > 1 else ""


def _check_words(program: dict[str, Any], subject: str) -> None:
    """Refuse text that is neither a name nor an arithmetic expression (statement 1)."""
    waiting: list[tuple[str, Any]] = [("", program)]
    while waiting:
        key, part = waiting.pop()
        if isinstance(part, list):
            waiting += [(key, each) for each in part]
        elif isinstance(part, dict):
            for inner, value in part.items():
                if inner in ("as_custom_obj", "as_opaque_obj", "script_obj_value") and value:
                    raise ModelError(f"{subject} contains a custom object", "export a model of tensors only")
                pattern = _EXPRESSION if key == "range_constraints" else _NAME
                _require(pattern.fullmatch(inner) is not None, inner, subject)
                if inner not in _FREE:
                    waiting.append((inner, value))
        elif isinstance(part, str):
            if key in ("in_spec", "out_spec"):
                _require(_plain_spec(json.loads(part)), part, subject)
            elif key == "expr_str":
                _require(_EXPRESSION.fullmatch(part) is not None, part, subject)
            elif key == "as_operator":
                _require(_TARGET.fullmatch(part) is not None, part, subject)
            elif key == "source_fn_stack":
                _require(re.fullmatch(r"[\w.,; <>-]*", part) is not None, part, subject)
            else:
                _require(_NAME.fullmatch(part) is not None, part, subject)


def _plain_spec(spec: Any) -> bool:
    """Whether inputs or outputs are tuples, lists and dicts of tensors."""
    waiting = [spec[1]] if isinstance(spec, list) and len(spec) == 2 else [None]
    while waiting:
        part = waiting.pop()
        if not isinstance(part, dict) or part.get("type") not in _SPEC_TYPES:
            return False
        context = json.loads(part["context"]) if isinstance(part.get("context"), str) else part.get("context")
        plain = context is None or (isinstance(context, list) and all(isinstance(each, str) for each in context))
        if not plain or not isinstance(part.get("children_spec"), list):
            return False
        waiting += part["children_spec"]
    return True


def _require(plain: bool, text: str, subject: str) -> None:
    if not plain:
        raise ModelError(f"{subject} contains {text[:60]!r} where a name is expected", _AGAIN)
