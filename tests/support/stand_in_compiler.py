"""Stands in for ``edgetpu_compiler`` in tests: speaks its documented format, and fails in every way it is told to.

``install`` puts an executable copy of this file into a folder with a ``scenario.json`` beside it:

- ``version``: what ``-v`` and every run say;
- ``mode``: what to do (see ``MODES``), or a mapping from input file name to mode;
- ``answer``: the compiled file to hand out, or a mapping from input file name to it;
- ``limit``: input files above that many bytes get the answer and numbers called "streaming", others "clean";
- ``numbers``: (cached, streamed, subgraphs, operators on the CPU) to print, or such a mapping.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

GOOD = "16.0.384591198"


def install(folder: Path, name: str = "edgetpu_compiler", **scenario: object) -> Path:
    """An executable that behaves as the scenario says."""
    program = folder / name
    body = Path(__file__).read_text(encoding="utf-8")
    program.write_text(f"#!{sys.executable} -S\n{body}", encoding="utf-8")
    program.chmod(0o755)
    (folder / "scenario.json").write_text(json.dumps({"version": GOOD, "mode": "ok", **scenario}, default=str))
    return program


def _size(number: int) -> str:
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number >= unit:
            return f"{number / unit:.2f}{name}"
    return f"{number:.2f}B"


def _report(source: str, made: Path, log: Path, numbers: list[int]) -> str:
    cached, streamed, subgraphs, on_cpu = numbers
    table = f"{'Operator':<30} {'Count':<10} Status\n\n{'CONV_2D':<30} {3:<10} Mapped to Edge TPU\n"
    more = ""
    if on_cpu:
        status = "Operation is otherwise supported, but not mapped due to some unspecified limitation"
        table += f"{'SOFTMAX':<30} {on_cpu:<10} {status}\n"
        more = (
            "\nModel successfully compiled but not all operations are supported by the Edge TPU. A percentage of the "
            "model will instead run on the CPU, which is slower.\n"
            f"Number of operations that will run on Edge TPU: 3\nNumber of operations that will run on CPU: {on_cpu}\n"
        )
    log.write_text(f"Edge TPU Compiler version {GOOD}\nInput: {source}\nOutput: {made}\n\n{table}")
    return f"""
Model compiled successfully in 1157 ms.

Input model: {source}
Input size: {_size(Path(source).stat().st_size)}
Output model: {made}
Output size: {_size(made.stat().st_size)}
On-chip memory used for caching model parameters: {_size(cached)}
On-chip memory remaining for caching model parameters: 5.74MiB
Off-chip memory used for streaming uncached model parameters: {_size(streamed)}
Number of Edge TPU subgraphs: {subgraphs}
Total number of operations: {3 + on_cpu}
Operation log: {log}
{more}
{table}Compilation child process completed within timeout period.
Compilation succeeded!"""


def _failed(*lines: str) -> int:
    print(*lines, "Compilation child process completed within timeout period.", "Compilation failed! ", sep="\n")
    return 1


def _not_quantised(source: str) -> int:
    print(f"Invalid model: {source}\nModel not quantized")
    return 1


def _op_version(source: str) -> int:
    print(f"ERROR: Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'\n\nInvalid model: {source}")
    print("Model could not be parsed")
    return 1


def _crash(number: int = signal.SIGSEGV) -> int:
    os.kill(os.getpid(), number)
    return 0


def _hang() -> int:
    child = subprocess.Popen(["sleep", "600"])  # in the same group: it must go too
    Path("child.pid").write_text(str(child.pid))
    print("Started a compilation timeout timer of 180 seconds.", flush=True)
    time.sleep(600)
    return 0


FAILURES = {
    "not quantised": _not_quantised,
    "op version": _op_version,
    "dynamic": lambda _: _failed(
        "ERROR: Attempting to use a delegate that only supports static-sized tensors with a graph that has "
        "dynamic-sized tensors.",
        "Compilation failed: Model failed in Tflite interpreter. Please ensure model can be loaded/run.",
    ),
    "custom": lambda _: _failed("ERROR: Encountered unresolved custom op: Atan."),
    "large": lambda _: _failed(
        "ERROR: Restored original execution plan after delegate application failure.",
        "Compilation failed: Compilation failed due to large activation tensors in model.",
    ),
    "gave up": lambda _: print("Compilation timed out.\nCompilation failed!") or 1,
    "plain": lambda _: _failed(),
    "thrown": lambda _: _failed("libc++abi: terminating with uncaught exception of type std::out_of_range: vector"),
    "internal": lambda _: print("Internal compiler error. Aborting!") or 1,
    "crash": lambda _: _crash(),
    "killed": lambda _: _crash(signal.SIGKILL),
    "hang": lambda _: _hang(),
    "nothing": lambda _: 0,
    "exit": lambda _: 3,
    "disk full": lambda _: _failed("ERROR: write failed: No space left on device"),
    "flood": lambda _: print("x" * 5_000_000) or 1,
}
MODES = ("ok", "no file", "stub", "late failure", "no lines", *FAILURES)


def _of(value: object, source: str) -> object:
    if isinstance(value, dict) and "streaming" in value:
        limit = json.loads((Path(__file__).parent / "scenario.json").read_text())["limit"]
        return value["streaming" if Path(source).stat().st_size > limit else "clean"]
    return value[Path(source).name] if isinstance(value, dict) else value


def main(arguments: list[str]) -> int:
    scenario = json.loads((Path(__file__).parent / "scenario.json").read_text())
    if scenario.get("says") is not None:
        print(scenario["says"])
        return 0
    if scenario.get("sleeps"):
        time.sleep(scenario["sleeps"])
    print(f"Edge TPU Compiler version {scenario['version']}")
    if arguments == ["-v"]:
        return 0
    assert arguments[:2] == ["-s", "-o"], arguments
    assert arguments[3] == "--timeout_sec", arguments
    assert int(arguments[4]) > 0, arguments
    out, source = Path(arguments[2]), arguments[-1]
    mode = str(_of(scenario["mode"], source))
    print(f"Started a compilation timeout timer of {arguments[4]} seconds.", flush=True)
    made = out / f"{Path(source).stem}_edgetpu.tflite"
    if mode.startswith("internal error"):
        count = Path(__file__).with_name(f"{Path(source).name}.tries")
        tries = int(count.read_text()) if count.exists() else 0
        count.write_text(str(tries + 1))
        if tries < int(mode.rpartition(" ")[2]):
            print("Internal compiler error. Aborting!")
            return 1
    if mode in FAILURES:
        return FAILURES[mode](source)
    if mode == "stub":
        made.write_bytes(b"\x1c\0\0\0TFL3" + b"\0" * 992)
    else:
        shutil.copyfile(str(_of(scenario["answer"], source)), made)
    numbers = _of(scenario["numbers"], source)
    assert isinstance(numbers, list)
    text = _report(source, made, made.with_suffix(".log"), numbers)
    if mode == "no file":
        made.unlink()
    print("Compilation succeeded!" if mode == "no lines" else text)
    return 4 if mode == "late failure" else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
