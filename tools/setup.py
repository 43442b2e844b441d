"""Make ``.venv`` and install graphcut into it, once.

1. The environment is complete if ``.venv/graphcut.json`` contains the hash of what was installed (the ``[project]``
   and ``[build-system]`` tables of pyproject.toml, constraints.txt, the path of the checkout) and the wanted extras.
   The file is emptied first and written last, so an interrupted set-up is never mistaken for a complete one.
2. An incomplete environment is deleted and created again, because a package that pip was unpacking when it was
   interrupted looks installed. An environment that this script did not create is kept, and an error is raised.
3. The output of pip goes to ``.venv/setup.log``. If pip fails, the last lines are shown.
4. Concurrent set-ups wait for each other.

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SIZES = {
    "": "0.7 GB",
    "cluster": "0.2 GB",
    "dev": "0.1 GB",
    "docs": "0.1 GB",
    "keras": "2 GB",
    "torch": "3 GB unless a small build is there",
}
EXTRAS = ("cluster", "dev", "docs", "keras", "torch")
CONSTRAINTS = "constraints.txt"
LAST_LINES = 12


class SetupError(Exception):
    """An error in one or a few lines."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Set up; with ``--check`` only return 0 if there is nothing to do, else 1."""
    parser = argparse.ArgumentParser(description="Make .venv and install graphcut into it.")
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help=f"one of {', '.join(EXTRAS)}")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 0 where all is installed")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout (default: this one)")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.extras) - set(EXTRAS))
    if unknown:
        parser.error(f"unknown extra {', '.join(unknown)}: one of {', '.join(EXTRAS)}")
    environment = options.root / ".venv"
    if options.check:
        return 0 if is_ready(options.root, environment, options.extras) else 1
    try:
        with (options.root / "pyproject.toml").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            set_up(options.root, environment, options.extras)
    except SetupError as error:
        print(f"set-up failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up interrupted; the next run starts it again", file=sys.stderr)
        return 130
    return 0


def is_ready(root: Path, environment: Path, extras: Iterable[str]) -> bool:
    """Return whether everything wanted is installed according to the stamp."""
    stamp = read_stamp(environment)
    return stamp.get("hash") == fingerprint(root) and set(extras) <= set(stamp.get("extras", ()))


def set_up(root: Path, environment: Path, extras: Iterable[str]) -> None:
    """Bring the environment into the wanted state.

    Raises:
        SetupError: the folder was not created by this script, the disk is full, or pip failed.
    """
    usable = works(environment)
    if usable and is_ready(root, environment, extras):
        return
    before = read_stamp(environment) if usable else {}
    wanted = sorted(set(extras) | set(before.get("extras", ())))
    started = time.monotonic()
    try:
        if not before:
            make_environment(environment)
        stamp_path(environment).write_text("{}")
        install(
            root, environment, wanted, new=[""] * (not before) + sorted(set(wanted) - set(before.get("extras", ())))
        )
        content = json.dumps({"hash": fingerprint(root), "extras": wanted})
        temporary = stamp_path(environment).with_suffix(".part")
        temporary.write_text(content)
        temporary.replace(stamp_path(environment))
    except OSError as error:
        raise SetupError(f"{error.filename or environment}: {error.strerror}") from error
    print(f"set up in {time.monotonic() - started:.0f} s", flush=True)


def works(environment: Path) -> bool:
    """Return whether the environment has a working Python with pip (its base may have been uninstalled)."""
    try:
        code = subprocess.run(
            [interpreter(environment), "-c", "import pip"], capture_output=True, check=False
        ).returncode
    except OSError:
        return False
    return code == 0


def interpreter(environment: Path) -> str:
    """Return the path of the environment's Python."""
    return str(environment / "bin" / "python")


def stamp_path(environment: Path) -> Path:
    """Return the path of the stamp: absent in a folder that is not ours, "{}" while unfinished."""
    return environment / "graphcut.json"


def read_stamp(environment: Path) -> dict[str, Any]:
    """Return the contents of the stamp; empty if the environment is unfinished or absent."""
    try:
        content = json.loads(stamp_path(environment).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def fingerprint(root: Path) -> str:
    """Return the hash of everything that determines what is installed.

    It includes the path of the checkout, because the scripts of a moved environment point to the old path.
    """
    with (root / "pyproject.toml").open("rb") as stream:
        tables = tomllib.load(stream)
    constraints = (root / CONSTRAINTS).read_text(encoding="utf-8")
    parts = [tables["project"], tables["build-system"], constraints, str(root.resolve())]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def make_environment(environment: Path) -> None:
    """Create an empty environment; an unfinished one of ours is deleted first.

    Raises:
        SetupError: the folder was not created by this script, or venv failed.
    """
    if environment.exists() and not stamp_path(environment).exists() and any(environment.iterdir()):
        raise SetupError(f"{environment} is there but was not made by this set-up: move it away, then run again")
    version = ".".join(str(part) for part in sys.version_info[:3])
    print(f"making {environment.name} with Python {version} ({sys.executable})", flush=True)
    discarded = environment.with_name(f"{environment.name}-discarded")
    if environment.exists():
        shutil.rmtree(discarded, ignore_errors=True)
        environment.rename(discarded)
    shutil.rmtree(discarded, ignore_errors=True)
    environment.mkdir()
    stamp_path(environment).write_text("{}")
    made = subprocess.run([sys.executable, "-m", "venv", str(environment)], capture_output=True, text=True, check=False)
    if made.returncode:
        raise SetupError(f"python -m venv: {(made.stdout + made.stderr).strip()}")


def install(root: Path, environment: Path, extras: Sequence[str], new: Sequence[str]) -> None:
    """Install graphcut with the extras from PyPI, editable, in the versions that constraints.txt pins.

    Args:
        root: the checkout.
        environment: where to install.
        extras: all that are wanted.
        new: those of them ("" for graphcut itself) that are not installed yet; reported to the user with their size.

    Raises:
        SetupError: pip failed; with its last lines.
    """
    what = ", ".join(f"{name or 'graphcut'} ({SIZES[name]})" for name in new) or "what pyproject.toml has changed"
    print(f"installing {what} from PyPI; this takes some minutes the first time", flush=True)
    target = f"{root}[{','.join(extras)}]" if extras else str(root)
    log = environment / "setup.log"
    command = [interpreter(environment), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    if run_logged([*command, "--constraint", str(root / CONSTRAINTS), "--editable", target], log):
        lines = log.read_text(errors="replace").strip().splitlines()
        raise SetupError("\n".join(["pip could not install (all of it in " + str(log) + "):", *lines[-LAST_LINES:]]))


def run_logged(command: Sequence[str], log: Path) -> int:
    """Run a command with its output in ``log``, and count the seconds on a terminal; return its exit code."""
    started = time.monotonic()
    with log.open("w") as stream, subprocess.Popen(command, stdout=stream, stderr=stream) as process:
        try:
            while True:
                try:
                    return process.wait(timeout=1)
                except subprocess.TimeoutExpired:
                    if sys.stdout.isatty():
                        print(f"\r  {time.monotonic() - started:.0f} s ", end="\r", flush=True)
        except KeyboardInterrupt:
            process.kill()
            process.wait()
            raise


if __name__ == "__main__":
    raise SystemExit(main())
