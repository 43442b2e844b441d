"""Run the model in the folder of this file.

Needs Python 3.9, numpy, Pillow (for pictures) and one interpreter: ai-edge-litert or tflite-runtime.

    python run.py picture.jpg                      the best classes
    python run.py *.jpg --devices usb:0,usb:1      several, as a pipeline
    python run.py --check                          compare this machine's results with the original ones
    python run.py --help                           all options

``graphcut bundle`` writes this file as ``run.py``; the code that it uses is in ``graphcut`` next to it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from graphcut.errors import GraphcutError, UsageError
from graphcut.regular_file import text_of
from graphcut.runtime.chain import Chain
from graphcut.runtime.devices import CPU
from graphcut.runtime.interpreter import AnyArray, Edge, Opener, dequantise
from graphcut.runtime.job_folder import RUNTIME_KEY, Job, described_devices, read_job
from graphcut.runtime.litert import LiteRtOpener
from graphcut.runtime.machine_check import as_lines, examine
from graphcut.runtime.pictures import read_input
from graphcut.runtime.pipeline import Pipeline, Settings, is_chain
from graphcut.runtime.processes import ProcessOpener

HERE = Path(__file__).resolve().parent
_WATCH_S = 0.2
"""Seconds between two scans of a watched folder."""
_WATCHED = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".npy", ".npz"})
_FEW_STEPS = 4.0
"""Allowed mean difference in int8 steps for other kernels; observed: 1 on average, at most 11."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, "see --help")


def main(argv: Sequence[str] | None = None, folder: Path = HERE) -> int:
    """Run the bundle in ``folder`` and return the exit code."""
    try:
        return _run(_parser().parse_args(argv), folder)
    except GraphcutError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(description="Run the model in this folder.", allow_abbrev=False)
    parser.add_argument("inputs", nargs="*", metavar="INPUT", type=Path, help="pictures, .npy or .npz files")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="number of classes to show (default: 5)")
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="file with class names, one per line (default: labels.txt)"
    )
    parser.add_argument(
        "--devices",
        default="",
        metavar="N|LIST",
        help="so many, or usb:0,pci:0,cpu ..; several make a pipeline (as planned, or cpu)",
    )
    parser.add_argument("--runtime", default="auto", help="auto, ai-edge-litert or tflite-runtime")
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="threads of each interpreter on a CPU (default: 1)"
    )
    parser.add_argument("--kernels", choices=("xnnpack", "builtin"), default="xnnpack")
    parser.add_argument("--processes", action="store_true", help="run each interpreter in a separate process")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.npz", help="write all outputs (int8)")
    parser.add_argument("--watch", type=Path, metavar="DIR", help="run every picture that comes into DIR, for ever")
    parser.add_argument("--check", action="store_true", help="run the kept input and compare with the kept result")
    parser.add_argument(
        "--doctor", action="store_true", help="look at this machine: interpreter, libedgetpu, Edge TPUs, rights"
    )
    parser.add_argument("--json", action="store_true", help="print results as JSON, one line per input")
    return parser


def _run(options: argparse.Namespace, folder: Path) -> int:
    if options.doctor:
        return _doctor(as_json=options.json)
    job = read_job(folder)
    opener: Any = LiteRtOpener(options.runtime, threads=options.threads, kernels=options.kernels)
    if options.processes:
        opener = ProcessOpener(opener)
    runtime = opener.describe()
    print(f"{job.name}, {job.way}; {runtime}; devices {described_devices(job, options.devices)}", file=sys.stderr)
    if job.synthetic:
        print("SYNTHETIC calibration data: accuracy on real data is unknown", file=sys.stderr)
    if options.check:
        return _check(job, folder, opener, runtime, options)
    if options.watch is not None:
        if options.inputs or options.output is not None:
            raise UsageError("--watch takes its inputs from the folder", "leave INPUT and --output out")
        if not options.watch.is_dir():
            raise UsageError(f"there is no folder {options.watch}", "make it first")
        labels = _labels(options.labels or folder / "labels.txt", required=options.labels is not None)
        for path, edges, outputs in _results(job, opener, options, _arriving(options.watch)):
            _show(path, edges, outputs, labels, options)
        return 0
    if not options.inputs:
        raise UsageError("no input", "pass a picture, an .npy or .npz file, or --check")
    labels = _labels(options.labels or folder / "labels.txt", required=options.labels is not None)
    kept: dict[str, AnyArray] = {}
    began, count = time.perf_counter(), 0
    for path, edges, outputs in _results(job, opener, options, options.inputs):
        count += 1
        _show(path, edges, outputs, labels, options)
        for edge, array in zip(edges, outputs):
            kept[edge.name if len(options.inputs) == 1 else f"{count}/{edge.name}"] = array
    if count > 1:
        print(f"{count} inputs in {time.perf_counter() - began:.2f} s", file=sys.stderr)
    if options.output is not None:
        _write(options.output, kept)
    return 0


def _doctor(*, as_json: bool) -> int:
    """Examine the machine; return 9 if something prevents the use of Edge TPUs."""
    found = examine()
    if as_json:
        print(json.dumps([each._asdict() for each in found], indent=1))
    else:
        print("\n".join(as_lines(found)))
    return 9 if any(each.state == "broken" for each in found) else 0


def _arriving(folder: Path) -> Iterator[Path]:
    """Yield files as they arrive in a folder, each once its size is stable; never ends."""
    sizes: dict[str, int] = {}
    done: set[str] = set()
    while True:
        for path in sorted(folder.iterdir()):
            if path.name in done or path.name.startswith(".") or path.suffix.lower() not in _WATCHED:
                continue
            size = path.stat().st_size
            if size and sizes.get(path.name) == size:
                done.add(path.name)
                yield path
            sizes[path.name] = size
        time.sleep(_WATCH_S)


def _results(
    job: Job, opener: Opener, options: argparse.Namespace, paths: Iterable[Path]
) -> Iterator[tuple[Path, Sequence[Edge], Sequence[AnyArray]]]:
    """Yield each input's path and outputs, in order: one by one on one device, as a pipeline on several."""
    placement = job.placement(options.devices)
    if placement is None or is_chain(placement):
        devices = (CPU,) if placement is None else placement.stations[0].devices
        with Chain(job.parts, opener, devices=devices, inputs=job.inputs, outputs=job.outputs) as chain:
            for path in paths:
                try:
                    array = read_input(path, chain.inputs, job.preprocessing)
                except GraphcutError as error:
                    _refuse(error, options)
                    continue
                yield path, chain.outputs, chain.run(array)
        return
    with Pipeline(
        job.parts,
        opener,
        placement=placement,
        inputs=job.inputs,
        outputs=job.outputs,
        settings=Settings(batch=job.batch),
        note=_say,
    ) as pipeline:
        for text in pipeline.placement.notes:
            _say(text)
        given: deque[Path] = deque()

        def inputs() -> Iterator[Sequence[AnyArray]]:
            for path in paths:
                try:
                    array = read_input(path, pipeline.inputs, job.preprocessing)
                except GraphcutError as error:
                    _refuse(error, options)
                    continue
                given.append(path)
                yield array

        for outputs in pipeline.run(inputs()):
            path = given.popleft()
            if not isinstance(outputs, BaseException):
                yield path, pipeline.outputs, outputs


def _refuse(error: GraphcutError, options: argparse.Namespace) -> None:
    """Skip a file that cannot be read if a folder is watched; otherwise raise the error."""
    if options.watch is None:
        raise error
    _say(f"left out: {error}")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _show(
    path: Path, edges: Sequence[Edge], outputs: Sequence[AnyArray], labels: Sequence[str], options: argparse.Namespace
) -> None:
    described = [described_output(edge, array, labels, options.top) for edge, array in zip(edges, outputs)]
    if options.json:
        print(json.dumps({"input": str(path), "outputs": described}), flush=True)
        return
    print(path)
    for each in described:
        shape = "x".join(map(str, each["shape"]))
        print(f"  {each['name']}  {shape}  from {each['min']:.6g} to {each['max']:.6g}")
        for best in each.get("top", ()):
            print(f"    {best['class']:>5}  {best['score']:.6g}  {best['label']}".rstrip())
    sys.stdout.flush()


def described_output(edge: Edge, array: AnyArray, labels: Sequence[str], top: int) -> dict[str, Any]:
    """Describe an output in float: shape, range and, for a vector of scores, the best classes."""
    values = dequantise(array, edge.scale, edge.zero_point) if edge.scale else array.astype(np.float32)
    described: dict[str, Any] = {
        "name": edge.name,
        "shape": list(edge.shape),
        "min": float(values.min()),
        "max": float(values.max()),
    }
    scores = values.reshape(-1)
    if scores.size > 1 and scores.size == edge.shape[-1]:
        best = np.argsort(-scores, kind="stable")[:top]
        fitting = labels if len(labels) == scores.size else []
        described["top"] = [
            {"class": int(index), "score": float(scores[index]), "label": fitting[index] if fitting else ""}
            for index in best
        ]
    return described


def _labels(path: Path, *, required: bool) -> list[str]:
    if not required and not path.is_file():
        return []
    try:
        return text_of(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as labels", "pass a text file with one name per line") from error


def _write(path: Path, arrays: dict[str, Any]) -> None:
    try:
        with path.open("wb") as stream:
            np.savez(stream, **arrays)
    except OSError as error:
        raise UsageError(f"cannot write {path} ({error.strerror})", "choose another --output") from error


def _check(job: Job, folder: Path, opener: Opener, runtime: str, options: argparse.Namespace) -> int:
    """Run the stored input and compare every tensor; return 0 if all are equal or close."""
    try:
        with np.load(folder / "check.npz", allow_pickle=False) as archive:
            kept = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{folder / 'check.npz'} cannot be read", "create the bundle again") from error
    made_with = str(np.ravel(kept.pop(RUNTIME_KEY))[0])
    placement = job.placement(options.devices)
    devices = (CPU,) if placement is None else placement.stations[0].devices[:1]
    with Chain(job.parts, opener, devices=devices, inputs=job.inputs, outputs=job.outputs) as chain:
        values = chain.run_all({edge.name: kept[edge.name] for edge in chain.inputs})
        makers = [(ends.label, edge.name) for ends in chain.flow.parts for edge in ends.outputs]
    same, agree, telling = True, True, 0
    for label, name in makers:
        wanted, got = kept[name].astype(np.int64), values[name].astype(np.int64)
        steps = np.abs(got - wanted)
        same &= not steps.any()
        agree &= float(steps.mean()) <= _FEW_STEPS
        constant = wanted.min() == wanted.max()
        telling += not constant
        note = ", constant: proves nothing" if constant else ""
        equal = (
            f"{float((steps == 0).mean()):.1%} equal, mean {float(steps.mean()):.2f} and most {int(steps.max())} steps"
        )
        print(f"{label}: {name}: {equal}{note}")
    if not telling:
        print("every kept tensor is constant, so the comparison proves nothing")
        return 7
    if same:
        print(f"the same bytes as {made_with}")
        return 0
    verdict = "close" if agree else "TOO FAR APART"
    print(f"made with {made_with}, run with {runtime}: {verdict} (a mean of {_FEW_STEPS:g} steps is allowed)")
    return 0 if agree else 7


if __name__ == "__main__":
    raise SystemExit(main())
