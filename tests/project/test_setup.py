"""Set-up from nothing: finding a Python, making the environment once, the wheel, the make targets.

Fake interpreters are small shell scripts; nothing is downloaded.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.places import ROOT

FIND = ROOT / "tools" / "find_python.sh"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SYSTEM = "/usr/bin:/bin"

# The places outside of HOME that find_python.sh looks in may hold a real Python on the machine that runs the tests.
elsewhere = [
    *Path("/usr/local/bin").glob("python3.1[23]"),
    *Path("/opt").glob("*/bin/python3*"),
    *Path("/opt").glob("python/*/bin/python3"),
    *(path for name in ("python3.12", "python3.13") for path in [shutil.which(name, path=SYSTEM)] if path),
]
nothing_elsewhere = pytest.mark.skipif(bool(elsewhere), reason=f"{elsewhere[:1]} would be found")


def load_setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("graphcut_setup", ROOT / "tools" / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


setup = load_setup()


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def real(path: Path) -> Path:
    """Make an interpreter that is the one running the tests."""
    return script(path, f'exec "{sys.executable}" "$@"')


def old(path: Path) -> Path:
    return script(path, "echo 'is 3.11.2'; exit 3")


def shim(path: Path) -> Path:
    return script(path, "echo 'pyenv: python3.12: command not found' >&2; exit 127")


def find(home: Path, path: str = SYSTEM, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"HOME": str(home), "PATH": path, **variables}
    return subprocess.run(["sh", str(FIND)], env=environment, capture_output=True, text=True, check=False)


def test_a_shim_that_fails_when_run_is_passed_over(tmp_path: Path) -> None:
    shim(tmp_path / "bin" / "python3.12")
    real(tmp_path / "bin" / "python3.13")
    result = find(tmp_path, f"{tmp_path}/bin:{SYSTEM}")
    assert result.returncode == 0
    assert result.stdout.strip() == sys.executable


@nothing_elsewhere
@pytest.mark.parametrize(
    "place",
    [
        ".pyenv/versions/3.12.1/bin/python3",
        ".local/share/uv/python/cpython-3.12.9-linux-x86_64-gnu/bin/python3",
        ".asdf/installs/python/3.13.1/bin/python3",
        ".local/share/mise/installs/python/3.12.8/bin/python3",
        ".local/bin/python3.12",
        "miniconda3/bin/python3",
        "miniforge3/envs/a name with spaces/bin/python3",
    ],
)
def test_version_managers_folders_are_looked_into(tmp_path: Path, place: str) -> None:
    real(tmp_path / place)
    old(tmp_path / "bin" / "python3")
    result = find(tmp_path, f"{tmp_path}/bin:{SYSTEM}")
    assert (result.returncode, result.stdout.strip()) == (0, sys.executable), result.stderr


@nothing_elsewhere
def test_the_managers_own_variables_say_where(tmp_path: Path) -> None:
    real(tmp_path / "my pyenv" / "versions" / "3.12.4" / "bin" / "python3")
    assert find(tmp_path / "nobody").returncode == 1
    assert find(tmp_path / "nobody", PYENV_ROOT=str(tmp_path / "my pyenv")).returncode == 0


@nothing_elsewhere
@pytest.mark.parametrize("place", ["versions/3.12.4", "installs/python/3.13.1"])
def test_a_manager_s_folder_is_found_by_its_shims_in_another_home(tmp_path: Path, place: str) -> None:
    root = tmp_path / "somebody's home" / ".manager"
    shim(root / "shims" / "python3.12")
    real(root / place / "bin" / "python3")
    result = find(tmp_path / "nobody", f"{root}/shims:{SYSTEM}")
    assert (result.returncode, result.stdout.strip()) == (0, sys.executable), result.stderr


@nothing_elsewhere
def test_where_there_is_none_it_says_what_was_tried_and_what_to_install(tmp_path: Path) -> None:
    old(tmp_path / "bin" / "python3")
    shim(tmp_path / "bin" / "python3.12")
    result = find(tmp_path, f"{tmp_path}/bin:{SYSTEM}")
    assert result.returncode == 1
    assert result.stdout == ""
    assert f"{tmp_path}/bin/python3 is 3.11.2" in result.stderr
    assert f"{tmp_path}/bin/python3.12 fails when it is run" in result.stderr
    assert "needs Python 3.12 or 3.13" in result.stderr
    assert "apt-get install python3.12" in result.stderr
    assert "PYTHON=" in result.stderr


def test_a_python_without_venv_is_named_with_its_cure(tmp_path: Path) -> None:
    lame = script(tmp_path / "python3.12", "echo 'is 3.12 but lacks the module ensurepip'; exit 4")
    result = find(tmp_path, PYTHON=str(lame))
    assert result.returncode == 1
    assert f"{lame} is 3.12 but lacks the module ensurepip (Debian and Ubuntu: apt-get install" in result.stderr


def test_a_named_python_is_the_only_one_tried(tmp_path: Path) -> None:
    real(tmp_path / "bin" / "python3.12")
    result = find(tmp_path, f"{tmp_path}/bin:{SYSTEM}", PYTHON=str(old(tmp_path / "mine")))
    assert result.returncode == 1
    assert "mine is 3.11.2" in result.stderr


def checkout(folder: Path) -> Path:
    """Make a checkout whose .venv is finished, without installing anything."""
    folder.mkdir()
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copy(ROOT / "constraints.txt", folder)
    environment = folder / ".venv"
    real(environment / "bin" / "python")
    stamp = {"hash": setup.fingerprint(folder), "extras": ["dev"]}
    setup.stamp_path(environment).write_text(json.dumps(stamp))
    return folder


def check(folder: Path, *extras: str) -> int:
    code = setup.main(["--check", "--root", str(folder), *extras])
    assert isinstance(code, int)
    return code


def test_a_finished_environment_is_left_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = checkout(tmp_path / "c")
    assert check(folder) == check(folder, "dev") == 0
    assert setup.main(["--root", str(folder), "dev"]) == 0
    assert capfd.readouterr() == ("", "")


def test_an_extra_more_or_another_pin_is_not_finished(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "c")
    assert check(folder, "keras") == 1
    project = folder / "pyproject.toml"
    text = project.read_text()
    project.write_text(text.replace("line-length = 120", "line-length = 121"))
    assert check(folder) == 0, "the linter's settings change nothing that is installed"
    project.write_text(text.replace("onnx2tf==2.6.9", "onnx2tf==2.7.0"))
    assert check(folder) == 1


def test_a_moved_checkout_is_not_finished(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "c")
    assert check(folder.rename(tmp_path / "moved")) == 1


@pytest.mark.parametrize("content", ["{}", "", "[]", '{"hash": "other", "extras": ["dev"]}'])
def test_an_interrupted_set_up_is_not_finished(tmp_path: Path, content: str) -> None:
    folder = checkout(tmp_path / "c")
    setup.stamp_path(folder / ".venv").write_text(content)
    assert check(folder, "dev") == 1


def test_the_stamp_is_empty_while_installing_and_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = checkout(tmp_path / "c")
    seen: list[str] = []

    def failing(root: Path, environment: Path, extras: list[str], new: list[str]) -> None:
        seen.append(setup.stamp_path(environment).read_text())
        assert (root, extras, new) == (folder, ["dev", "keras"], ["keras"])
        raise setup.SetupError("pip could not install")

    monkeypatch.setattr(setup, "install", failing)
    assert setup.main(["--root", str(folder), "keras"]) == 1
    assert seen == ["{}"]
    assert check(folder, "dev") == 1
    assert capfd.readouterr().err == "set-up failed: pip could not install\n"


def test_an_unfinished_environment_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkout(tmp_path / "c")
    environment = folder / ".venv"
    setup.stamp_path(environment).write_text("{}")
    (environment / "half-installed").touch()
    installed: list[list[list[str]]] = []
    monkeypatch.setattr(setup, "install", lambda *arguments, new: installed.append([*arguments[2:], new]))
    assert setup.main(["--root", str(folder), "dev"]) == 0
    assert installed == [[["dev"], ["", "dev"]]]
    assert not (environment / "half-installed").exists()
    assert (environment / "pyvenv.cfg").is_file()
    assert check(folder, "dev") == 0


def test_other_constraints_are_not_finished(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "c")
    with (folder / "constraints.txt").open("a") as constraints:
        constraints.write("another==1\n")
    assert check(folder, "dev") == 1


def test_pip_is_given_the_constraints(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "c")
    script(folder / ".venv" / "bin" / "python", f'printf "%s\\n" "$@" >> {shlex.quote(str(tmp_path / "arguments"))}')
    assert setup.main(["--root", str(folder), "keras"]) == 0
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[arguments.index("--constraint") + 1] == str(folder / "constraints.txt")
    assert arguments[-2:] == ["--editable", f"{folder}[dev,keras]"]


PINNED = {
    requirement.name: requirement
    for requirement in map(Requirement, (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[2:])
}


@pytest.mark.parametrize("extra", ["", "cluster", "dev", "docs", "keras"])
def test_constraints_pin_what_pyproject_asks_for(extra: str) -> None:
    """`make lock` was run after pyproject.toml changed. torch stays open: people have the build for their machine."""
    project = PYPROJECT["project"]
    asked = [
        Requirement(line) for line in (project["optional-dependencies"][extra] if extra else project["dependencies"])
    ]
    assert asked
    for requirement in asked:
        (pin,) = PINNED[canonicalize_name(requirement.name)].specifier
        assert pin.operator == "=="
        assert pin.version in requirement.specifier, f"constraints.txt has {pin}: run `make lock`"


def release_notes(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "release_notes.py"), *arguments, "--root", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_release_notes_are_the_section_of_the_version(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')
    changelog = (
        "# Changelog\n\n## Unreleased\n\n- soon\n\n## 1.2.0 (2027-01-02)\n\n### Added\n\n- this\n\n## 1.2\n\n- that\n"
    )
    (tmp_path / "CHANGELOG.md").write_text(changelog)
    assert release_notes(tmp_path, "v1.2.0").stdout == release_notes(tmp_path).stdout == "### Added\n\n- this\n"
    other = release_notes(tmp_path, "v1.2.1")
    assert (other.returncode, other.stdout) == (1, "")
    assert other.stderr == "tag v1.2.1 is not v1.2.0, the version in pyproject.toml\n"
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n- soon\n")
    assert release_notes(tmp_path).stderr == "CHANGELOG.md has no section for 1.2.0\n"


def test_the_changelog_has_a_section_for_this_version() -> None:
    shown = release_notes(ROOT, f"v{PYPROJECT['project']['version']}")
    assert shown.returncode == 0
    assert len(shown.stdout.splitlines()) > 10


@pytest.mark.parametrize("name", ["ci.yml", "release.yml"])
def test_workflows_run_the_command_that_readme_names(name: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^ *(make test)\b.*#", readme, re.MULTILINE)
    assert f"run: {command}\n" in (ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8")


def test_somebody_elses_environment_is_not_thrown_away(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = checkout(tmp_path / "c")
    setup.stamp_path(folder / ".venv").unlink()
    assert setup.main(["--root", str(folder)]) == 1
    assert "was not made by this set-up: move it away" in capfd.readouterr().err
    assert (folder / ".venv" / "bin" / "python").exists()


def test_pips_last_lines_are_shown_where_it_fails(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = checkout(tmp_path / "c")
    script(
        folder / ".venv" / "bin" / "python",
        'case "$*" in *"-m pip"*) echo "ERROR: No matching distribution"; exit 1 ;; esac; exit 0',
    )
    assert setup.main(["--root", str(folder), "keras"]) == 1
    captured = capfd.readouterr()
    assert "installing keras (2 GB)" in captured.out
    assert captured.err.endswith("ERROR: No matching distribution\n")
    assert "ERROR: No matching distribution" in (folder / ".venv" / "setup.log").read_text()


def make(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment = {**kept, **variables}
    return subprocess.run(
        ["make", "-C", str(ROOT), *words], env=environment, capture_output=True, text=True, check=False
    )


def test_make_help_names_every_target() -> None:
    result = make("help")
    assert result.returncode == 0
    phony = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:"))
    for target in phony.split()[1:]:
        assert f"  {target} " in result.stdout


def test_make_split_without_a_model_says_what_it_needs() -> None:
    result = make("split", MODEL="")
    assert result.returncode != 0
    assert "make split needs MODEL: a recipe (densenet121 " in result.stderr


def split_command(folder: Path, variables: Mapping[str, str]) -> tuple[list[str], list[str], str]:
    """Run tools/split.sh in a copy with doubles; return the extras it set up, graphcut's arguments, what it said."""
    (folder / "tools").mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "tools" / "split.sh", folder / "tools")
    shutil.copytree(ROOT / "models", folder / "models", dirs_exist_ok=True)
    script(folder / "tools" / "setup.sh", 'printf "%s\\n" "$@" > extras')
    script(folder / ".venv" / "bin" / "python", 'printf "%s\\n" "$@" > arguments')
    result = subprocess.run(
        ["sh", str(folder / "tools" / "split.sh")],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    extras = (folder / "extras").read_text().split()
    arguments = (folder / "arguments").read_text().splitlines()
    assert arguments[:3] == ["-m", "graphcut", "split"]
    return extras, arguments[3:], result.stdout


def test_split_of_a_recipe_brings_keras_and_says_that_images_are_synthetic(tmp_path: Path) -> None:
    extras, arguments, said = split_command(tmp_path, {"MODEL": "resnet101"})
    assert extras == ["keras"]
    assert arguments == [
        *("resnet101", "--force", "-o", "out/resnet101", "--budget", "7MiB", "--calibration", "random"),
    ]
    assert "synthetic" in said


@pytest.mark.parametrize(
    ("model", "extras", "out"),
    [
        ("models/net.h5", ["keras"], "out/net"),
        ("net.keras", ["keras"], "out/net"),
        ("net.tflite", ["keras"], "out/net"),
        ("net.pt2", ["torch"], "out/net"),
        ("package.nets:resnet", ["torch"], "out/resnet"),
        ("saved/", ["keras"], "out/saved"),
        ("net.pt", [], "out/net.pt"),
    ],
)
def test_split_of_another_source_brings_its_extra(tmp_path: Path, model: str, extras: list[str], out: str) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()
    got, arguments, _ = split_command(tmp_path, {"MODEL": model, "CALIBRATION": "photos"})
    assert got == extras
    assert arguments[:4] == [model, "--force", "-o", out]


def test_split_of_a_file_never_needs_keras_and_keeps_spaces(tmp_path: Path) -> None:
    variables = {"MODEL": "my models/net.onnx", "CALIBRATION": "my photos", "OUT": "o u t", "SEGMENTS": "4"}
    extras, arguments, said = split_command(tmp_path, {**variables, "ARGS": "--per-tensor --json"})
    assert extras == []
    assert arguments == [
        *("my models/net.onnx", "--force", "-o", "o u t", "--segments", "4"),
        *("--calibration", "my photos", "--per-tensor", "--json"),
    ]
    assert said == ""


def test_split_of_a_file_without_calibration_is_left_to_graphcut_to_refuse(tmp_path: Path) -> None:
    _, arguments, _ = split_command(tmp_path, {"MODEL": "net.onnx", "BUDGET": "6MiB"})
    assert arguments == ["net.onnx", "--force", "-o", "out/net", "--budget", "6MiB"]


def test_an_unknown_recipe_is_left_to_graphcut_to_refuse(tmp_path: Path) -> None:
    extras, arguments, said = split_command(tmp_path, {"MODEL": "resnet11"})
    assert (extras, arguments[0], said) == ([], "resnet11", "")


def test_a_recipe_with_weights_gets_no_synthetic_images(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('source = "keras"\nweights = "trained.h5"\n')
    extras, arguments, _ = split_command(tmp_path, {"MODEL": str(recipe)})
    assert extras == ["keras"]
    assert "--calibration" not in arguments


def test_ci_runs_the_tests() -> None:
    assert "exec make test\n" in (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_core_needs_no_tensorflow() -> None:
    project = PYPROJECT["project"]
    assert not [line for line in project["dependencies"] if line.startswith(("tensorflow", "keras", "tf"))]
    assert "onnx2tf==2.6.9" in project["dependencies"]
    assert "ai-edge-quantizer==0.5.1" in project["dependencies"]
    assert sorted(project["optional-dependencies"]) == sorted([*setup.EXTRAS, "all"])


def test_the_wheel_carries_recipes_types_licence_and_a_command(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling is not installed (make test installs it)")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    wheel = next(tmp_path.glob("graphcut-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    recipes = {f"graphcut/_models/{path.name}" for path in (ROOT / "models").glob("*.toml")}
    assert recipes
    assert recipes <= names
    assert "graphcut/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "tools/", "models/"))]
    information = f"graphcut-{PYPROJECT['project']['version']}.dist-info"
    assert f"{information}/licenses/LICENSE" in names
    commands = (tmp_path / "installed" / information / "entry_points.txt").read_text()
    assert "graphcut = graphcut.cli:main" in commands
    program = "from graphcut import recipes; print(recipes.folder()); print(recipes.names())"
    shown = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert Path(shown[0]) == tmp_path / "installed" / "graphcut" / "_models"
    assert "resnet101" in ast.literal_eval(shown[1])
