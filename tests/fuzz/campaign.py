"""Campaigns: a kind of file, its seeds, how they are mutated, and the verbs that read the result.

``python -m tests.fuzz.campaign --seconds 300 --seed 1`` runs all of them in turn and prints counts; ``--kind onnx``
runs one. The same seed gives the same files in the same order. A file on which a run is not sound is kept.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.fuzz import mutate, neighbours, seeds
from tests.fuzz.forked import Outcome, faults, run, scratch
from tests.fuzz.mutate import Mutator
from tests.support.places import SHARED
from tests.support.provenance import provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """One kind of file.

    Attributes:
        name: of the kind.
        suffix: of its files.
        seeds: valid files.
        mutate: makes another file of one.
        commands: argument lists; "FILE" stands for the mutated file (unpacked where it is a folder), "SAMPLE" for an
            input, "OUT" for a place to write to.
    """

    name: str
    suffix: str
    seeds: Callable[[], tuple[bytes, ...]]
    mutate: Mutator
    commands: tuple[tuple[str, ...], ...]


def _compiled() -> tuple[bytes, ...]:
    from tests.support.compiled_files import compiled_file, executable, package

    del compiled_file, executable, package
    pairs = SHARED / "edgetpu" / "pairs"
    found = sorted(pairs.glob("mobilenet_v1_0.25*_edgetpu.tflite")) if pairs.is_dir() else []
    return tuple(path.read_bytes() for path in found[:1]) or seeds.tflite_models()


INSPECT, PLAN = ("inspect", "FILE"), ("plan", "FILE", "--segments", "2")
SPLIT = ("split", "FILE", "--segments", "1", "--calibration", "random", "-o", "OUT")
CAMPAIGNS = (
    Campaign(
        name="onnx",
        suffix=".onnx",
        seeds=seeds.onnx_models,
        mutate=mutate.onnx_model,
        commands=(
            *(("inspect", "FILE"),) * 5,
            ("plan", "FILE", "--segments", "2"),
            ("plan", "FILE", "--segments", "2"),
            SPLIT,
        ),
    ),
    Campaign(
        name="neighbours",
        suffix=".onnx",
        seeds=neighbours.seeds,
        mutate=neighbours.model,
        commands=(*(INSPECT,) * 3, PLAN, ("plan", "FILE"), SPLIT),
    ),
    Campaign(
        name="tflite",
        suffix=".tflite",
        seeds=seeds.tflite_models,
        mutate=mutate.tflite_model,
        commands=(("inspect", "FILE"), ("check", "FILE"), ("cost", "FILE")),
    ),
    Campaign(
        name="compiled",
        suffix="_edgetpu.tflite",
        seeds=_compiled,
        mutate=mutate.octets,
        commands=(("inspect", "FILE"), ("cost", "FILE")),
    ),
    Campaign(name="hdf5", suffix=".h5", seeds=seeds.hdf5_models, mutate=mutate.octets, commands=(("inspect", "FILE"),)),
    Campaign(
        name="keras",
        suffix=".keras",
        seeds=seeds.keras_archives,
        mutate=mutate.archive,
        commands=(("inspect", "FILE"),),
    ),
    Campaign(
        name="pt2", suffix=".pt2", seeds=seeds.torch_programs, mutate=mutate.archive, commands=(("inspect", "FILE"),)
    ),
    Campaign(
        name="recipe", suffix=".toml", seeds=seeds.recipes, mutate=mutate.toml_text, commands=(("inspect", "FILE"),)
    ),
    Campaign(
        name="npz",
        suffix=".npz",
        seeds=seeds.arrays,
        mutate=partial(mutate.archive, inside=mutate.octets),
        commands=(("calibrate",),),
    ),
    Campaign(name="npy", suffix=".npy", seeds=seeds.array, mutate=mutate.octets, commands=(("calibrate",),)),
    Campaign(
        name="folder",
        suffix=".zip",
        seeds=seeds.splits,
        mutate=mutate.folder,
        commands=(
            *(("verify", "FILE"), ("verify", "FILE"), ("run", "FILE", "SAMPLE"), ("bundle", "FILE", "-o", "OUT")),
            *(("simulate", "FILE"), ("report", "FILE"), ("run", "FILE", "SAMPLE", "--tail", "2")),
        ),
    ),
    Campaign(name="plan", suffix=".json", seeds=seeds.plans, mutate=mutate.json_text, commands=(("verify", "FILE"),)),
    Campaign(name="picture", suffix=".png", seeds=seeds.pictures, mutate=mutate.octets, commands=(("calibrate",),)),
)


@dataclass(slots=True)
class Count:
    """What a campaign found."""

    files: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)


def files(campaign: Campaign, seed: int) -> Iterator[tuple[int, bytes, tuple[str, ...]]]:
    """Mutated files without end: number, content, and the command that reads it."""
    number = 0
    while True:
        rng = random.Random(f"{campaign.name} {seed} {number}")
        content = campaign.mutate(rng, rng.choice(campaign.seeds()))
        yield number, content, rng.choice(campaign.commands)
        number += 1


def one(campaign: Campaign, content: bytes, command: tuple[str, ...], folder: Path) -> tuple[Outcome, list[str]]:
    """Run a command on a mutated file."""
    path = folder / f"file{campaign.suffix}"
    path.write_bytes(content)
    if command[0] == "calibrate":
        model = folder / "model.onnx"
        model.write_bytes(seeds.onnx_models()[0])
        # No plan fits one byte: the samples are read before, and nothing is converted.
        arguments = ["split", str(model), "--calibration", str(path), "--mean", "0", "--std", "1"]
        arguments += ["--budget", "1B", "-o", str(folder / "out")]
    else:
        if campaign.name == "folder":
            path = _unpacked(path, folder / "split")
        sample = folder / "sample.npy"
        sample.write_bytes(seeds.sample())
        shutil.rmtree(folder / "out", ignore_errors=True)
        places = {"FILE": str(path), "SAMPLE": str(sample), "OUT": str(folder / "out")}
        arguments = [places.get(word, word) for word in command]
    isolate = campaign.name == "folder"
    outcome = run(arguments, isolate=isolate)
    if outcome.signal and not outcome.late and not isolate:
        outcome = run(arguments, isolate=True)  # a native library went down, in the child itself: as it is in real use
    return outcome, faults(outcome)


def _unpacked(path: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(target)
    return target


def hunt(campaign: Campaign, seed: int, *, count: int | None, seconds: float, kept: Path) -> Count:
    """Run a campaign until a number of files or some seconds."""
    found, end, folder = Count(), time.monotonic() + seconds, scratch()
    try:
        for number, content, command in files(campaign, seed):
            if (count is not None and number >= count) or time.monotonic() > end:
                break
            outcome, wrong = one(campaign, content, command, folder)
            found.files += 1
            found.codes[str(outcome.code) if outcome.code is not None else f"signal {outcome.signal}"] += 1
            for each in wrong:
                found.faults[each] += 1
            if wrong:
                kept.mkdir(parents=True, exist_ok=True)
                (kept / f"{campaign.name}_{seed}_{number:05}{campaign.suffix}").write_bytes(content)
                (kept / f"{campaign.name}_{seed}_{number:05}.txt").write_text(
                    f"{' '.join(command)}\n{'; '.join(wrong)}\n{outcome.text}"
                )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run campaigns and print counts; 1 where a run was not sound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", action="append", choices=[each.name for each in CAMPAIGNS])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int)
    parser.add_argument("--seconds", type=float, default=30.0, help="for each kind")
    parser.add_argument("--kept", type=Path, default=Path("out/fuzz"), help="folder for the files on which it fails")
    parser.add_argument("--json", action="store_true", help="counts as JSON on stdout, for tools.reliability_table")
    chosen = parser.parse_args(arguments)
    _import_all()
    results = {}
    for campaign in CAMPAIGNS:
        if chosen.kind and campaign.name not in chosen.kind:
            continue
        count = hunt(campaign, chosen.seed, count=chosen.count, seconds=chosen.seconds, kept=chosen.kept)
        results[campaign.name] = count
        codes = ", ".join(f"{code}: {number}" for code, number in sorted(count.codes.items()))
        sys.stderr.write(f"{campaign.name:9} {count.files:6} files; exit codes {codes}\n")
        for what, number in count.faults.most_common():
            sys.stderr.write(f"          {number:6} x {what}\n")
    if chosen.json:
        kinds = {
            name: {"files": each.files, "codes": each.codes, "faults": each.faults} for name, each in results.items()
        }
        sys.stdout.write(json.dumps({**provenance("fuzz"), "seed": chosen.seed, "kinds": kinds}, indent=1) + "\n")
    return int(any(each.faults for each in results.values()))


def _import_all() -> None:
    """What the command line imports late, imported once and inherited by every child."""
    from importlib import import_module

    for name in (
        *("graphcut.cli.inspect", "graphcut.cli.plan", "graphcut.cli.split", "graphcut.cli.check", "graphcut.cli.cost"),
        *("graphcut.cli.verify", "graphcut.cli.run", "graphcut.cli.bundle", "graphcut.cli.simulate"),
        *("graphcut.cli.report", "graphcut.result.reopen", "graphcut.deploy.bundling", "graphcut.report.html.collect"),
        *("graphcut.graph.native_worker", "graphcut.graph.load", "graphcut.flow", "graphcut.samples"),
        *("graphcut.sources.registry", "graphcut.sources.keras_check", "graphcut.edgetpu.compiled"),
    ):
        import_module(name)


if __name__ == "__main__":
    sys.exit(main())
