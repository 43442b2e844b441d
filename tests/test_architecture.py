"""The rules of CONTRIBUTING.md's "Architecture", held by reading the imports.

1. Dependencies run one way: a part of the package imports only the parts that USES lists for it.
2. Each foreign API has one part that imports it (OWNERS), so that it can be replaced in one place.
3. Only the command line prints or exits.
4. Modules say what they are for, and end before 450 lines.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "graphcut"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
LONGEST_MODULE = 450

BASE = frozenset({"errors", "progress", "records", "units"})
FOUNDATION = BASE | {"graph", "tflite", "quant", "runtime", "workers", "edgetpu"}
FLOW = FOUNDATION | {"recipes", "stages", "sources", "report"}
USES: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "progress": frozenset(),
    "records": frozenset(),
    "units": BASE,
    "recipes": BASE,
    "graph": BASE,
    "tflite": BASE,
    "runtime": BASE | {"workers"},
    "workers": BASE,
    "cluster": BASE | {"runtime"},
    "quant": BASE | {"tflite", "runtime"},
    "edgetpu": BASE | {"tflite", "workers"},
    "stages": FOUNDATION,
    "sources": BASE | {"graph", "tflite", "runtime", "recipes", "workers"},
    "report": BASE | {"graph", "stages", "runtime", "edgetpu"},
    "pipeline": FLOW,
    "api": FLOW | {"pipeline"},
    "": frozenset({"api", "errors", "records", "progress"}),  # graphcut/__init__.py
    "cli": FLOW | {"pipeline", "api", "cluster"},
    "__main__": frozenset({"cli"}),
}

# A longer name wins over a shorter one.
OWNERS: dict[str, str] = {
    "onnx": "graph",
    "onnxruntime": "graph",
    "google.protobuf": "graph",
    "ai_edge_quantizer": "quant",
    "ai_edge_litert.interpreter": "runtime",
    "tflite_runtime": "runtime",
    "ai_edge_litert.schema_py_generated": "tflite",
    "ai_edge_litert.tools": "tflite",
    "flatbuffers": "tflite",
    "onnx2tf": "tflite",
    "tensorflow": "sources",
    "keras": "sources",
    "tf2onnx": "sources",
    "tf_keras": "sources",
    "h5py": "sources",
    "torch": "sources",
    "subprocess": "workers",
    "multiprocessing": "workers",
    "PIL": "stages runtime",
    "ray": "cluster",
    "netron": "report",
    "tqdm": "cli",
    "argparse": "cli",
}


def part_of(module: str) -> str:
    """Return the part that a module (path inside the package) belongs to; "" for the package itself."""
    first = module.split("/")[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Give the line and the full dotted name of everything imported, ``from a import b`` as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                yield node.lineno, f"{'.' * node.level}{node.module or ''}.{name.name}"


def import_offences(module: str, source: str) -> list[str]:
    """Return a line for each import that breaks statement 1 or 2."""
    part = part_of(module)
    offences = []
    for line, name in imported(ast.parse(source)):
        words = name.split(".")
        if words[0] == "graphcut":
            other = words[1] if len(words) > 1 else ""
            if other not in USES:
                offences.append(f"{module}:{line} imports {name}, which is no part that USES knows")
            elif other != part and other not in USES[part]:
                offences.append(f"{module}:{line} imports {name}: {part or 'the package'} must not know {other}")
        owner = max((key for key in OWNERS if f"{name}.".startswith(f"{key}.")), key=len, default=None)
        if owner is not None and part not in OWNERS[owner].split():
            offences.append(f"{module}:{line} imports {name}: only {OWNERS[owner]} does")
        if name.startswith("."):
            offences.append(f"{module}:{line} imports {name}: relative imports hide the part")
    return offences


def output_offences(module: str, source: str) -> list[str]:
    """Return a line for each print or exit outside of the command line."""
    if part_of(module) in ("cli", "__main__"):
        return []
    offences = []
    for node in ast.walk(ast.parse(source)):
        text = ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute | ast.Raise) else ""
        if text.startswith("raise SystemExit") or text in ("print", "exit", "sys.exit", "sys.stdout", "sys.stderr"):
            offences.append(f"{module}:{node.lineno} uses {text}")
    return offences


def undocumented(tree: ast.Module) -> list[str]:
    """Return the public functions, classes and methods without a docstring."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    for owner in [node for node in public if isinstance(node, ast.ClassDef)]:
        public += [node for node in owner.body if isinstance(node, kinds) and not node.name.startswith("_")]
    return [f"{node.name} (line {node.lineno})" for node in public if not ast.get_docstring(node)]


def source_of(module: str) -> str:
    return (PACKAGE / module).read_text(encoding="utf-8")


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way_and_foreign_apis_have_one_owner(module: str) -> None:
    assert part_of(module) in USES, f"say in USES what {part_of(module)} may import"
    assert import_offences(module, source_of(module)) == []


@pytest.mark.parametrize("module", MODULES)
def test_only_the_command_line_prints_or_exits(module: str) -> None:
    assert output_offences(module, source_of(module)) == []


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_documented_and_short(module: str) -> None:
    source = source_of(module)
    tree = ast.parse(source)
    assert not source.strip() or ast.get_docstring(tree), "a module says what it is for"
    assert undocumented(tree) == []
    assert len(source.splitlines()) <= LONGEST_MODULE, "split it by idea"
    assert Path(module).stem != "utils", "name it after what it does"


RECORD_PARTS = ("records", "recipes", "stages", "sources", "report", "pipeline", "api")


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) in RECORD_PARTS])
def test_public_records_are_frozen_slotted_and_keyword_only(module: str) -> None:
    for node in ast.parse(source_of(module)).body:
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
            continue
        for decorator in node.decorator_list:
            text = ast.unparse(decorator)
            if text.startswith(("dataclass", "dataclasses.dataclass")):
                for option in ("frozen=True", "slots=True", "kw_only=True"):
                    assert option in text, f"{module}:{node.lineno} {node.name}"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("stages/plan.py", "import onnx"),
        ("stages/plan.py", "from onnx import helper"),
        ("stages/plan.py", "from graphcut.cli import main"),
        ("stages/plan.py", "from graphcut import pipeline"),
        ("graph/load.py", "def late():\n    import subprocess"),
        ("graph/load.py", "from graphcut.stages.plan import plan"),
        ("runtime/litert.py", "from ai_edge_litert import schema_py_generated"),
        ("cli/verbs.py", "import tensorflow as tf"),
        ("graph/load.py", "from . import names"),
        ("graph/load.py", "from graphcut.unheard_of import thing"),
    ],
)
def test_a_forbidden_import_is_seen(module: str, source: str) -> None:
    assert len(import_offences(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("graph/load.py", "import onnx.utils"),
        ("runtime/litert.py", "from ai_edge_litert.interpreter import Interpreter"),
        ("cli/verbs.py", "from graphcut.pipeline import build"),
        ("stages/plan.py", "import onnx_like_name"),
    ],
)
def test_an_allowed_import_is_let_through(module: str, source: str) -> None:
    assert import_offences(module, source) == []


def test_a_print_is_seen() -> None:
    assert output_offences("stages/plan.py", "import sys\nprint(1)\nsys.exit(2)") == [
        "stages/plan.py:2 uses print",
        "stages/plan.py:3 uses sys.exit",
    ]


def test_no_script_hides_a_module_of_python() -> None:
    """A script's folder comes first on its path: tools/numbers.py stopped each script beside it at ``import numpy``."""
    assert {path.stem for path in (ROOT / "tools").glob("*.py")} & sys.stdlib_module_names == set()


def test_no_tracked_file_holds_a_path_of_one_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    # Built from parts, so that this file does not hold one.
    machine_path = re.compile("/(?:" + "|".join(("work", "root", "home", "tmp/lab")) + r")/\w")
    offenders = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and path.suffix not in (".tflite", ".onnx", ".npy", ".npz", ".png", ".jpg"):
            lines = path.read_text(encoding="utf-8").splitlines()
            offenders += [f"{name}:{number}" for number, line in enumerate(lines, 1) if machine_path.search(line)]
    assert offenders == []
