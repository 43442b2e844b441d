"""The rules of CONTRIBUTING.md's "Architecture", held by reading the imports.

1. Dependencies run one way: a part imports only the parts that USES lists for it, and the parts form no circle.
2. Each foreign API has one part that imports it (OWNERS), so that it can be replaced in one place.
3. Modules named in strings (workers start them) count as imports.
4. Only the command line prints or exits.
5. Modules say what they are for, and a file name occurs once in the package.
6. Only the command line spells settings as flags: other texts name them, so that each interface spells them its way.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import rustworkx

from graphcut.settings import SplitSettings, flag_of, table

ROOT = next(parent for parent in Path(__file__).resolve().parents if (parent / "pyproject.toml").is_file())
PACKAGE = ROOT / "graphcut"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

BASE = frozenset(
    {
        *("cache_folder", "codec", "errors", "progress", "record_schema", "record_types", "records", "settings"),
        *("regular_file", "units"),
    }
)
FOUNDATION = BASE | {
    "versions",
    "files",
    "numpy_files",
    "staging",
    "samples",
    "recipes",
    "graph",
    "tflite",
    "runtime",
    "workers",
    "quant",
    "edgetpu",
}
PREDICTION = FOUNDATION | {"analysis", "prediction"}
CONVERSION = PREDICTION | {"planning", "measurement"}
RESULT = CONVERSION | {"verification", "result"}
FLOW = RESULT | {"conversion", "deploy", "evaluation", "report", "sources"}
GRAPH = frozenset({"graph.model", "graph.net", "graph.native", "graph.protobuf", "graph.reference", "graph.session"})
"""What the passes of a graph stand on."""

# A part is a module or a folder; a longer name wins over a shorter one. "graph" in a row allows "graph.passes" too.
USES: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "regular_file": frozenset(),
    "progress": frozenset(),
    "versions": frozenset(),
    "cache_folder": frozenset({"errors", "versions"}),
    "files": frozenset({"errors"}),
    "staging": frozenset({"errors", "files", "regular_file"}),
    "record_types": frozenset(),
    "record_schema": frozenset({"record_types"}),
    "codec": frozenset({"errors", "files", "record_schema", "record_types"}),
    "records": frozenset({"codec", "errors", "record_types"}),
    "settings": frozenset({"errors", "records"}),
    "units": frozenset({"errors"}),
    "recipes": BASE,
    "numpy_files": BASE,
    "samples": BASE | {"files", "numpy_files", "recipes"},
    "graph": BASE | {"graph", "workers"},
    "graph.model": BASE | GRAPH,
    "graph.native": BASE | GRAPH | {"graph.native_worker", "workers"},
    "graph.native_worker": BASE | GRAPH | {"workers"},
    "graph.net": BASE | GRAPH,
    "graph.protobuf": BASE | GRAPH,
    "graph.reference": BASE | GRAPH,
    "graph.session": BASE | GRAPH | {"workers"},
    "graph.passes": BASE | GRAPH,
    "tflite": BASE,
    "runtime": BASE | {"workers.remote_object"},
    "runtime.isolated": BASE | {"runtime", "workers"},
    "workers": BASE | {"workers.remote_object_main"},
    "workers.remote_object": BASE | {"workers.remote_object_main"},
    "workers.remote_object_main": BASE,
    "quant": BASE | {"tflite", "runtime"},
    "edgetpu": BASE | {"files", "tflite", "workers"},
    "sources": BASE | {"sources", "files", "graph", "tflite", "runtime", "recipes", "workers"},
    "sources.adapters": BASE | {"recipes", "sources"},
    "analysis": FOUNDATION,
    "prediction": FOUNDATION | {"analysis"},
    "planning": PREDICTION,
    "measurement": FOUNDATION,
    "conversion": CONVERSION,
    "verification": CONVERSION,
    "result": RESULT,
    "deploy": RESULT,
    "evaluation": RESULT | {"evaluation"},
    "cluster": BASE | {"runtime"},
    "report": RESULT | {"codec", "deploy", "evaluation"},
    "prepare": FOUNDATION | {"prediction", "sources"},
    "flow": FLOW | {"prepare"},
    "split_folder": FLOW | {"flow"},
    "api": FLOW | {"flow", "prepare", "split_folder"},
    "": FLOW | {"flow", "api", "split_folder"},  # graphcut/__init__.py
    "cli": FLOW | {"flow", "api", "split_folder", "cluster"},
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
    "psutil": "workers",
    "PIL": "samples runtime report evaluation split_folder",
    "pycocotools": "evaluation",
    "ray": "cluster",
    "netron": "report",
    "jinja2": "report",
    "markupsafe": "report",
    "pydantic": "record_schema",
    "rich": "cli",
    "shtab": "cli",
    "argparse": "cli",
}


NAMED_MODULE = re.compile(r"graphcut(\.\w+)+(:\w+)?")
"""A module, or a function in it, as a string."""


def part_of(name: str) -> str:
    """Return the part of USES that a module belongs to, given as a path or dotted; "" for the package itself."""
    words = name.removesuffix(".py").replace("/", ".").removesuffix(".__init__").split(".")
    if words == ["__init__"]:
        return ""
    known = (".".join(words[:length]) for length in range(len(words), 0, -1))
    return next((part for part in known if part in USES), words[0])


def allows(part: str, other: str) -> bool:
    """Say whether a part may import another one: itself, or one that its row lists, or a part inside such a one."""
    return other == part or any(f"{other}.".startswith(f"{listed}.") for listed in USES[part])


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Give the line and the full dotted name of everything imported, ``from a import b`` as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                yield node.lineno, f"{'.' * node.level}{node.module or ''}.{name.name}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and NAMED_MODULE.fullmatch(node.value):
            yield node.lineno, node.value.replace(":", ".")


def import_offences(module: str, source: str) -> list[str]:
    """Return a line for each import that breaks statement 1 or 2."""
    part = part_of(module)
    offences = []
    for line, name in imported(ast.parse(source)):
        if name.startswith("graphcut."):
            other = part_of(name.removeprefix("graphcut."))
            if other not in USES:
                offences.append(f"{module}:{line} imports {name}, which is no part that USES knows")
            elif not allows(part, other):
                offences.append(f"{module}:{line} imports {name}: {part or 'the package'} must not know {other}")
        owner = max((key for key in OWNERS if f"{name}.".startswith(f"{key}.")), key=len, default=None)
        if owner is not None and part.split(".")[0] not in OWNERS[owner].split():
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


FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]+)")
SPEAKS_SHELL = ("cli/", "__main__.py", "report/html/command.py", "report/note.py", "deploy/bundling.py", "cluster/")
"""What writes commands for people, or speaks to other programs' users: the note, a bundle's README, ``ray start``."""


def flag_offences(module: str, source: str) -> list[str]:
    """Return a line for each text outside of docstrings that spells a setting as a flag (statement 6)."""
    if module.startswith(SPEAKS_SHELL):
        return []
    tree = ast.parse(source)
    prose = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    known = {flag_of(name) for name in table(SplitSettings)}
    return [
        f"{module}:{node.lineno} spells {found[0]} as a flag; name it by graphcut.errors.setting"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
        for found in FLAG.finditer(node.value)
        if found[0] in known or found[0] in ("--labels", "--host", "--port", "--calibration", "--mean", "--std")
    ]


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
def test_only_the_command_line_spells_flags(module: str) -> None:
    if module != "settings.py":  # says how the command line spells them
        assert flag_offences(module, source_of(module)) == []


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_documented(module: str) -> None:
    source = source_of(module)
    tree = ast.parse(source)
    assert not source.strip() or ast.get_docstring(tree), "a module says what it is for"
    assert undocumented(tree) == []
    assert Path(module).stem != "utils", "name it after what it does"


RECORD_PARTS = frozenset(
    {"records", "recipes", "samples", "analysis", "prediction", "planning", "measurement", "conversion"}
    | {"verification", "result", "deploy", "evaluation", "sources", "sources.adapters", "report", "flow", "api"}
    | {"codec", "settings", "split_folder"}
)


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


def test_parts_form_no_circle() -> None:
    """Among the rows of USES; the modules that every pass stands on know each other."""
    parts = [part for part in USES if part not in GRAPH]
    graph = rustworkx.PyDiGraph()
    index = dict(zip(parts, graph.add_nodes_from(parts), strict=True))
    for part in parts:
        for other in parts:
            nested = f"{other}.".startswith(f"{part}.") or f"{part}.".startswith(f"{other}.")
            if not nested and allows(part, other):
                graph.add_edge(index[part], index[other], None)
    assert [[graph[at] for at in circle] for circle in rustworkx.simple_cycles(graph)] == []


def test_contributing_lists_every_part() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    listed = [name.rstrip("/") for row in rows for name in re.findall(r"`([^`]+)`", row)]
    found = {module.removesuffix(".py").split("/")[0] for module in MODULES} - {"__init__", "__main__"}
    assert sorted(listed) == sorted(found)


def test_a_file_name_occurs_once() -> None:
    counted = Counter(Path(module).name for module in MODULES)
    assert sorted(name for name, count in counted.items() if count > 1) == ["__init__.py"]


def test_a_public_type_name_occurs_once() -> None:
    places: dict[str, list[str]] = {}
    for module in MODULES:
        for node in ast.parse(source_of(module)).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("planning/make_plan.py", "import onnx"),
        ("planning/make_plan.py", "from onnx import helper"),
        ("planning/make_plan.py", "from graphcut.cli import main"),
        ("planning/make_plan.py", "from graphcut import flow"),
        ("graph/load.py", "def late():\n    import subprocess"),
        ("graph/load.py", "from graphcut.planning.make_plan import plan"),
        ("graph/passes/picks.py", "from graphcut.graph.load import load"),
        ("graph/net.py", "from graphcut.graph.passes import picks"),
        ("graph/load.py", 'WORKER = "graphcut.conversion.convert_segment:convert"'),
        ("runtime/pipeline.py", "from graphcut.workers.pool import Pool"),
        ("verification/proof.py", "from graphcut.conversion import convert"),
        ("conversion/convert.py", "from graphcut.verification import proof"),
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
        ("cli/verbs.py", "from graphcut.flow import split"),
        ("planning/make_plan.py", "import onnx_like_name"),
    ],
)
def test_an_allowed_import_is_let_through(module: str, source: str) -> None:
    assert import_offences(module, source) == []


def test_a_print_is_seen() -> None:
    assert output_offences("planning/make_plan.py", "import sys\nprint(1)\nsys.exit(2)") == [
        "planning/make_plan.py:2 uses print",
        "planning/make_plan.py:3 uses sys.exit",
    ]


def test_a_flag_is_seen() -> None:
    assert len(flag_offences("planning/make_plan.py", "raise ValueError(f'raise --budget to {1}')")) == 1
    assert flag_offences("planning/make_plan.py", "def f():\n    'takes --budget'") == []
    assert flag_offences("edgetpu/compiler.py", "['--network', 'none']") == []


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
