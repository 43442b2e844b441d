"""The command that makes a split again, from what its manifest keeps, and its preprocessing in words."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from graphcut.records import Preprocessing
from graphcut.result.manifest import Manifest
from graphcut.units import format_budget

_LIMITS = {"tflite_bytes": "tflite", "compiled_bytes": "compiled", "parameter_bytes": "parameters"}
_LIMITS |= {"off_chip_bytes": "off-chip", "activation_bytes": "activations", "seam_bytes": "seam"}


def split_command(split: Manifest) -> str:
    """Write the command. Paths are not kept in a manifest: MODEL and DATA stand for them."""
    calibration = split.document["calibration"]
    data = "random" if calibration["synthetic"] else "DATA"
    words = ["graphcut", "split", _model(split), "-o", "OUT", "--calibration", data]
    if calibration["samples"]:
        words += ["--samples", str(calibration["samples"])]
    words += plan_words(split.options)
    for name in ("input_type", "output_type"):
        if split.options.get(name, "int8") != "int8":
            words += [f"--{name.replace('_', '-')}", str(split.options[name])]
    prepared = split.preprocessing
    if prepared is not None:
        words += ["--mean", _numbers(prepared.mean), "--std", _numbers(prepared.std)]
        words += ["--colour", prepared.colour] if prepared.colour != "rgb" else []
    if calibration["synthetic"] and split.options.get("seed"):
        words += ["--seed", str(split.options["seed"])]
    return written(words)


def written(words: Sequence[str]) -> str:
    """Write the words of a command as a shell takes them."""
    return shlex.join(words)


def plan_words(options: Mapping[str, Any]) -> list[str]:
    """Write the options of a plan as they are given on the command line."""
    words: list[str] = []
    for name in ("inputs", "outputs"):
        if options.get(name):
            words += [f"--{name}", ",".join(each.replace(",", "\\,") for each in options[name])]
    if options.get("budget_bytes") is not None:
        words += ["--budget", format_budget(options["budget_bytes"])]
    for name, flag in (("segments", "--segments"), ("max_segments", "--max-segments"), ("min_rank", "--min-rank")):
        if options.get(name) is not None:
            words += [flag, str(options[name])]
    if options.get("range_bytes"):
        words += ["--range", "..".join(map(format_budget, options["range_bytes"]))]
    if options.get("cuts") is not None:
        words += ["--cuts", ",".join(each.replace(",", "\\,") for each in options["cuts"])]
    elif options.get("strategy") not in (
        None,
        "given",
        "range",
        "greedy" if not options.get("segments") else "balanced",
    ):
        words += ["--objective", str(options["strategy"])]
    if options.get("max_seam_tensors") is not None:
        words += ["--max-seam-tensors", str(options["max_seam_tensors"])]
    for name, flag in (("pins", "--pin"), ("avoid", "--avoid")):
        words += [word for layer in options.get(name) or () for word in (flag, layer)]
    for name, value in (options.get("limits") or {}).items():
        if value is not None and name in _LIMITS:
            words += ["--limit", f"{_LIMITS[name]}={value}"]
    if options.get("per_channel") is False:
        words.append("--per-tensor")
    if options.get("layer_split") is False:
        words.append("--no-layer-split")
    if options.get("allow_pre_activation"):
        words.append("--pre-activation")
    return words


def preprocessing_words(prepared: Preprocessing | None) -> str:
    """Say how pixels become the model's input."""
    if prepared is None:
        return "Not given: samples were fed as they are."
    order = "red, green, blue" if prepared.colour == "rgb" else "blue, green, red"
    mean, std = _numbers(prepared.mean), _numbers(prepared.std)
    return f"(pixel - {mean}) / {std} for pixels of 0 to 255, channels in the order {order}."


def _model(split: Manifest) -> str:
    return split.source.name if split.source.kind == "recipe" else "MODEL"


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{each:g}" for each in values)
