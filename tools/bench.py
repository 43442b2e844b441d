"""``make bench``: the whole ResNet101 job against the plain recipe, one after the other on the same machine.

1. The plain recipe (:mod:`plain_recipe`): 7 segments and 5 tails, one TFLiteConverter run each. Its time includes only
   calibration and conversion, not starting TensorFlow or building the model.
2. graphcut: ``graphcut split`` of the exported ONNX file as a user runs it, including process start: plan, 7 segments,
   all tails, verification on 8 samples. The time excludes the export, which is cached.
   A run with ``--per-tensor`` follows for the sizes: the plain recipe is per-tensor, graphcut per-channel by default.
3. The same split with one additional option and a warm cache, compared with the first split.
4. ``inspect`` and ``plan`` of the ONNX file, including process start and without the cache, compared with only loading
   the file with onnx and onnxruntime.
5. Peak memory is the largest sum of the resident sets of a process and its descendants, sampled ten times a second.
   Shared memory is counted for each process, so the figure is an upper bound.

The page cache is warm for both: the ONNX file has just been read, and the export has just imported TensorFlow.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

TOOLS = Path(__file__).resolve().parent
BUDGET = "7MiB"
AIM = 20.0
FLOOR = 10.0
SAMPLING_SECONDS = 0.1
MIB, GIB = 2**20, 2**30
PAGE = os.sysconf("SC_PAGE_SIZE")


class BenchError(Exception):
    """A run failed; contains the last lines of its output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a command: wall time, peak memory of its process tree, and its stdout."""

    seconds: float
    peak_bytes: int
    output: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both and print a table or JSON; return 0 if graphcut takes a tenth of the time or less."""
    parser = argparse.ArgumentParser(description="Time the ResNet101 job against the plain recipe.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--repeat", type=int, default=1, help="runs of graphcut; the median counts (default 1)")
    parser.add_argument("--plain", type=Path, help="figures of an earlier plain run (its JSON) instead of a new one")
    parser.add_argument("--model", type=Path, help="an exported ResNet101 (default: export it, or take the cached one)")
    parser.add_argument("--keep", type=Path, help="keep graphcut's output folder here")
    options = parser.parse_args(arguments)
    try:
        figures = bench(options)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(figures, indent=2) if options.json else table(figures))
    return 0 if figures["ratio"] >= FLOOR else 1


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Run both; return seconds, bytes and the ratio as ``--json`` prints them."""
    with tempfile.TemporaryDirectory(prefix="graphcut-bench-") as name:
        folder = Path(name)
        model = options.model or folder / "resnet101.onnx"
        if not options.model:
            say("exporting ResNet101 (not counted)")
            run([sys.executable, "-m", "graphcut", "export", "resnet101", "-o", str(model)])
        if options.plain:
            plain = json.loads(options.plain.read_text())
        else:
            say("plain recipe: 7 segments and 5 tails, one TFLiteConverter run each (about two minutes)")
            measured = run([sys.executable, str(TOOLS / "plain_recipe.py"), "--log", str(folder / "plain.log")])
            plain = {**json.loads(measured.output), "peak_bytes": measured.peak_bytes}
        out = options.keep or folder / "split"
        ours = split(model, out, options.repeat, "--no-cache")
        per_tensor = split(model, folder / "per-tensor", 1, "--per-tensor", "--no-cache")
        cached = ("--cache", str(folder / "cache"))
        first = split(model, folder / "first", 1, *cached)
        second = split(model, folder / "second", options.repeat, "--min-sqnr", "9", *cached)
        return {
            "ratio": round(plain["seconds"] / ours["seconds"], 2),
            "plain": plain,
            "graphcut": ours,
            "graphcut_per_tensor": per_tensor,
            "again": {"first": first["seconds"], "second": second["seconds"]},
            "reading": reading(model, options.repeat),
            "model_bytes": model.stat().st_size,
            "cores": os.cpu_count(),
        }


def split(model: Path, out: Path, times: int, *options: str) -> dict[str, Any]:
    """Run ``graphcut split`` several times; return the median time, the highest peak and the sizes by artifact."""
    command = [sys.executable, "-m", "graphcut", "split", str(model), "--budget", BUDGET]
    command += ["--calibration", "random", "--force", "-o", str(out), *options]
    runs = []
    for number in range(1, times + 1):
        say(f"{' '.join(('graphcut split', *options))}: run {number} of {times}")
        runs.append(run(command))
    return {
        "seconds": round(median(run.seconds for run in runs), 3),
        "all_seconds": [round(run.seconds, 3) for run in runs],
        "peak_bytes": max(run.peak_bytes for run in runs),
        "artifacts": [{"name": name, "bytes": size} for name, size in sizes(out).items()],
    }


def reading(model: Path, times: int) -> dict[str, float]:
    """Measure in turns the seconds of loading a file with onnx and onnxruntime, of ``inspect`` and of ``plan``."""
    loading = f"import onnx, onnxruntime; onnx.load({str(model)!r}); onnxruntime.InferenceSession({str(model)!r})"
    ours = [sys.executable, "-m", "graphcut"]
    commands = {
        "loading": [sys.executable, "-c", loading],
        "inspect": [*ours, "inspect", str(model), "--no-cache"],
        "plan": [*ours, "plan", str(model), "--budget", BUDGET, "--no-cache"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(1, times + 1):
        say(f"reading {model.name}: run {number} of {times}")
        for name, command in commands.items():
            taken[name].append(run(command).seconds)
    return {name: round(median(seconds), 3) for name, seconds in taken.items()}


def sizes(out: Path) -> dict[str, int]:
    """Return the file sizes in an output folder by the plain recipe's names: seg1 .., tail_k2 .., unsplit.

    The prefix segments in ``pairs_kN`` are the files of ``full_split``, so they are not listed again.
    """
    named = {path.name.split("_")[0]: path for path in sorted(out.glob("full_split/tflite/*.tflite"))}
    for path in sorted(out.glob("pairs_k*/tflite/tail_*.tflite")):
        named[f"tail_{path.parts[-3].removeprefix('pairs_')}"] = path
    named |= {path.parent.name: path for path in out.glob("unsplit/*.tflite")}
    return {name: path.stat().st_size for name, path in named.items()}


def run(command: Sequence[str]) -> Run:
    """Run a command to completion and sample the memory of its process tree.

    Raises:
        BenchError: it failed.
    """
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        peaks = [0]
        finished = threading.Event()
        sampler = threading.Thread(target=sample, args=(process.pid, peaks, finished))
        sampler.start()
        try:
            output, _ = process.communicate()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        finally:
            finished.set()
            sampler.join()
        seconds = time.perf_counter() - started
        if process.returncode:
            errors.seek(0)
            last = "\n".join((output + errors.read()).strip().splitlines()[-12:])
            raise BenchError(f"{' '.join(command)}\nfailed with exit code {process.returncode}:\n{last}")
    return Run(seconds=seconds, peak_bytes=max(peaks), output=output)


def sample(root: int, peaks: list[int], finished: threading.Event) -> None:
    """Append the tree's resident bytes to ``peaks`` until the command has finished."""
    while not finished.wait(SAMPLING_SECONDS):
        peaks.append(tree_bytes(root))


def tree_bytes(root: int) -> int:
    """Return the sum of the resident sets of a process and its descendants, from /proc (0 if not on Linux).

    The search starts at the root process to keep the overhead low on machines with many processes: scanning all of
    them took an eighth of a core.
    """
    total, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        with suppress(OSError):  # it ended in the meantime
            # proc(5), statm: the second field is the resident set, in pages
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
    return total


def table(figures: dict[str, Any]) -> str:
    """Format the figures as text."""
    plain, ours, per_tensor = figures["plain"], figures["graphcut"], figures["graphcut_per_tensor"]
    columns = [{a["name"]: a["bytes"] for a in figures["artifacts"]} for figures in (plain, per_tensor, ours)]
    lines = [
        f"{'int8 file, MiB':<16}{'plain recipe':>14}{'graphcut':>14}{'graphcut':>14}",
        f"{'':<16}{'per-tensor':>14}{'per-tensor':>14}{'per-channel':>14}",
    ]
    for name in dict.fromkeys(name for column in columns for name in column):
        cells = [f"{column[name] / MIB:.3f}" if name in column else "-" for column in columns]
        lines.append(f"{name:<16}" + "".join(f"{cell:>14}" for cell in cells))
    lines.append("")
    for title, key, unit in (("seconds", "seconds", 1), ("peak GiB", "peak_bytes", GIB)):
        digits = 1 if unit == 1 else 2
        lines.append(f"{title:<16}" + "".join(f"{run[key] / unit:>14.{digits}f}" for run in (plain, per_tensor, ours)))
    again, read = figures["again"], figures["reading"]
    lines += [
        "",
        f"a second split with one more option takes 1/{again['first'] / again['second']:.1f} of the first's time"
        " (1/4 aimed at)",
        f"inspect takes {read['inspect'] / read['loading']:.1f} and plan {read['plan'] / read['loading']:.1f} times as"
        " long as loading the file with onnx and onnxruntime (2 aimed at)",
        f"peak memory is {ours['peak_bytes'] / figures['model_bytes']:.1f} times the file (6 aimed at)",
        f"graphcut, verification included, takes 1/{figures['ratio']:.1f} of the plain recipe's time on"
        f" {figures['cores']} cores (at most 1/{FLOOR:.0f} wanted, 1/{AIM:.0f} aimed at)",
    ]
    return "\n".join(lines)


def say(text: str) -> None:
    """Report progress on stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
