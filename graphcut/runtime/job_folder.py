"""Find the parts to run in a folder: the output of a split, or a bundle made from one.

A split's folder holds the chain (``full_split``), a prefix and its tail for every k (``pairs_k*``) and the unsplit
model; compiled files are in a ``tpu`` folder next to each ``tflite`` folder. A bundle contains one of these ways: its
``meta.json`` lists the parts. Where ``meta.json`` is missing, the files alone are enough; then the model's outputs are
the tensors that no part reads, and the preprocessing of pictures is unknown.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from graphcut.errors import UsageError, VerificationError, setting
from graphcut.regular_file import text_of
from graphcut.runtime.devices import CPU, parse_devices
from graphcut.runtime.interpreter import Part
from graphcut.runtime.placement import Placement, Station, on_cpu, place, planned

MANIFEST = "meta.json"
RUNTIME_KEY = "made with"
"""Name of the text in a bundle's ``check.npz`` that names the interpreter that computed its arrays."""

_WAY_OUT = "pass the folder that graphcut split or graphcut bundle wrote"
_SEGMENT = re.compile(r"seg([0-9]+)_int8\.tflite")
_TAIL = re.compile(r"tail_seg([0-9]+)_to_([0-9]+)_int8\.tflite")


class Job(NamedTuple):
    """Parts to run, and how.

    Attributes:
        name: of the model.
        way: "chain", "prefix + tail k=3" or "unsplit".
        parts: in order.
        inputs, outputs: names of the model's inputs and outputs, in order; empty where nobody wrote them down.
        preprocessing: from pixels to the model's input: "mean", "std", "colour"; None if unknown.
        synthetic: calibration data was synthetic, so the results mean nothing.
        deployment: of a plan for several devices, as the manifest has it; None without, and for other ways.
        rest_on_cpu: the last part is what the Edge TPU cannot do of the model; it runs on the CPU.
    """

    name: str
    way: str
    parts: tuple[Part, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    preprocessing: Mapping[str, Any] | None
    synthetic: bool
    deployment: Mapping[str, Any] | None = None
    rest_on_cpu: bool = False

    @property
    def batch(self) -> int:
        """Inputs that a device with several parts takes together."""
        return 1 if self.deployment is None else int(self.deployment["batch"])

    @property
    def kind(self) -> str:
        """Of a device where only a number of them is given."""
        return "usb" if self.deployment is None else str(self.deployment["stages"][0]["kind"])

    def placement(self, devices: str = "") -> Placement | None:
        """Which parts run on which devices.

        Args:
            devices: "usb:0,cpu", or a number; "" for what was planned: on the CPU where parts are not compiled.

        Returns:
            None where nothing was planned and no device is named.

        Raises:
            UsageError: the list of devices is wrong.
        """
        if devices:
            named = parse_devices(devices, self.kind)
            labels = [part.label for part in self.parts]
            if self.rest_on_cpu and len(named) != len(labels) and any(device.is_tpu for device in named):
                made = place(labels[:-1], named, batch=self.batch)
                rest = Station(len(labels) - 1, len(labels), (CPU,))
                return Placement((*made.stations, rest), (*made.notes, f"{labels[-1]} runs on the CPU"))
            return place(labels, named, batch=self.batch)
        if self.deployment is None:
            return None
        made = planned(self.deployment, len(self.parts))
        tpus = [station for station in made.stations if station.devices[0].is_tpu]
        missing = any(part.compiled is None for each in tpus for part in self.parts[each.first : each.stop])
        return on_cpu(made) if missing else made


def read_job(folder: Path, *, tail: int | None = None, unsplit: bool = False) -> Job:
    """Find the parts of a folder.

    Args:
        folder: of a split or a bundle.
        tail: run seg1 .. seg(tail-1) and the tail from segment ``tail``; None for the chain. A bundle has one way.
        unsplit: run the whole model in one file.

    Raises:
        UsageError: the folder does not exist or has no such parts, or ``meta.json`` is damaged.
        VerificationError: a file is not the one that was verified.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder" if folder.exists() else f"there is no folder {folder}", _WAY_OUT)
    meta = document(folder)
    try:
        return _job(folder, meta, tail, unsplit)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{folder / MANIFEST} is damaged ({error})", "create the folder again") from error


def described_devices(job: Job, devices: str) -> str:
    """The devices that run a job, for people: "usb:0 + usb:1 | usb:2" for two copies, then one."""
    placement = job.placement(devices)
    if placement is None:
        return "cpu"
    return " | ".join(" + ".join(map(str, station.devices)) for station in placement.stations)


def segment_count(folder: Path) -> int:
    """Number of segments in a split's folder; 0 if there are none."""
    return len(_numbered(folder / "full_split" / "tflite"))


def _job(folder: Path, meta: Mapping[str, Any], tail: int | None, unsplit: bool) -> Job:
    if "parts" in meta:
        if tail is not None or unsplit:
            raise UsageError(
                f"{folder} is a bundle, which runs one way ({meta.get('way')})",
                "make another bundle with graphcut bundle",
            )
        parts = tuple(_listed(folder, each) for each in meta["parts"])
        _require_bundled(meta["parts"], parts)
        way = str(meta.get("way", "chain"))
    else:
        way, parts = _split_parts(folder, tail, unsplit)
        used = [path for part in parts for path in (part.path, part.compiled) if path is not None]
        require_unchanged(folder, meta.get("files", {}), used)
    source = meta.get("source", {})
    return Job(
        name=str(source.get("name", folder.name)),
        way=way,
        parts=parts,
        inputs=tuple(str(each["int8"]["layer"]) for each in meta.get("inputs", ())),
        outputs=tuple(str(each["layer"]) for each in meta.get("outputs", ())),
        preprocessing=meta.get("options", {}).get("preprocessing"),
        synthetic=bool(meta.get("calibration", {}).get("synthetic", False)),
        deployment=_deployment(meta, parts, way),
        rest_on_cpu=way == "chain" and bool(meta.get("rest_on_cpu") or meta.get("plan", {}).get("on_cpu")),
    )


def _deployment(meta: Mapping[str, Any], parts: Sequence[Part], way: str) -> Mapping[str, Any] | None:
    """What was planned for the chain; a tail or the unsplit model run as they are told.

    Raises:
        ValueError: it does not fit the parts.
    """
    found = meta["deployment"] if "deployment" in meta else meta.get("plan", {}).get("deployment")
    if found is None or way != "chain":
        return None
    planned(found, len(parts))
    if not isinstance(found["batch"], int) or not 1 <= found["batch"] <= 2**16:
        raise ValueError(f"{found['batch']!r} inputs are no batch")
    return dict(found)


def require_unchanged(folder: Path, files: Mapping[str, Any], paths: Iterable[Path]) -> None:
    """Compare files of a split with the hashes in its ``meta.json``; missing files are skipped.

    Args:
        folder: of the split.
        files: the file entries of ``meta.json``.
        paths: the files that will run.

    Raises:
        VerificationError: a file is not the one that was verified.
    """
    for path in paths:
        entry = files.get(path.relative_to(folder).as_posix())
        if entry and path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            raise VerificationError(f"{path} has changed since it was verified", "split the model again")


def _split_parts(folder: Path, tail: int | None, unsplit: bool) -> tuple[str, tuple[Part, ...]]:
    if unsplit:
        path = folder / "unsplit" / "tflite" / "unsplit_int8.tflite"
        path = path if path.is_file() else folder / "unsplit" / "unsplit_int8.tflite"
        if not path.is_file():
            raise UsageError(f"{folder} contains no unsplit model", _WAY_OUT)
        return "unsplit", (part_at("unsplit", path),)
    if tail is None:
        found = _numbered(folder / "full_split" / "tflite")
        if not found:
            raise UsageError(f"{folder} contains no segments (full_split/tflite)", _WAY_OUT)
        _reject_gaps(found, folder / "full_split" / "tflite")
        return "chain", tuple(part_at(f"segment {index}", path) for index, path in sorted(found.items()))
    k = segment_count(folder)
    pair = folder / f"pairs_k{tail}" / "tflite"
    tails = [(path, match) for path, match in _matching(pair, _TAIL) if int(match[1]) == tail]
    if not tails:
        raise UsageError(
            f"{folder} has no tail that begins at segment {tail}", f"choose {setting('tail')} from 2 to {k}"
        )
    prefix = {index: path for index, path in _numbered(pair).items() if index < tail}
    _reject_gaps(prefix, pair, upto=tail - 1)
    parts = [part_at(f"segment {index}", path) for index, path in sorted(prefix.items())]
    path, match = tails[0]
    return f"prefix + tail k={tail}", (*parts, part_at(f"tail {match[1]}..{match[2]}", path))


def _matching(folder: Path, pattern: re.Pattern[str]) -> list[tuple[Path, re.Match[str]]]:
    if not folder.is_dir():
        return []
    found = [(path, pattern.fullmatch(path.name)) for path in sorted(folder.iterdir())]
    return [(path, match) for path, match in found if match is not None]


def _numbered(folder: Path) -> dict[int, Path]:
    return {int(match[1]): path for path, match in _matching(folder, _SEGMENT)}


def _reject_gaps(found: Mapping[int, Path], folder: Path, upto: int | None = None) -> None:
    missing = [index for index in range(1, (upto or max(found)) + 1) if index not in found]
    if missing:
        raise UsageError(f"{folder} lacks seg{missing[0]}_int8.tflite", "split the model again")


def part_at(label: str, path: Path) -> Part:
    """A part with its compiled file, if there is one: ``tpu/NAME_edgetpu.tflite`` next to the ``tflite`` folder."""
    name = f"{path.stem}_edgetpu.tflite"
    places = (path.parent.parent / "tpu" / name, path.parent / "tpu" / name, path.parent / name)
    return Part(label, path, next((each for each in places if each.is_file()), None))


def _listed(folder: Path, entry: Mapping[str, Any]) -> Part:
    compiled = inside(folder, entry["compiled"]) if entry.get("compiled") else None
    return Part(str(entry["label"]), inside(folder, entry["file"]), compiled)


def _require_bundled(entries: Sequence[Mapping[str, Any]], parts: Sequence[Part]) -> None:
    """Compare the files of a bundle with the hashes in its ``meta.json``, each once.

    Raises:
        VerificationError: one is missing or has changed.
    """
    for entry, part in zip(entries, parts):
        for path, digest in ((part.path, entry["sha256"]), (part.compiled, entry.get("compiled_sha256"))):
            if path is None:
                continue
            if not path.is_file():
                raise VerificationError(f"{path} is missing", "copy the bundle again")
            if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                raise VerificationError(f"{path} is not the file that was bundled", "copy the bundle again")


def inside(folder: Path, name: Any) -> Path:
    """A path from a manifest, which must be inside the folder after resolving links.

    Raises:
        ValueError: it is outside the folder, or is not a path.
    """
    path = folder / str(name)
    if (
        not isinstance(name, str)
        or not name
        or Path(os.path.realpath(folder)) not in Path(os.path.realpath(path)).parents
    ):
        raise ValueError(f"{name!r} is outside the folder")
    return path


def document(folder: Path) -> dict[str, Any]:
    """The folder's ``meta.json``; empty if there is none.

    Raises:
        UsageError: it cannot be read.
    """
    path = folder / MANIFEST
    try:
        parsed = json.loads(text_of(path))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read ({error})", "create the folder again") from error
    if not isinstance(parsed, dict):
        raise UsageError(f"{path} is not a manifest of graphcut", _WAY_OUT)
    return parsed
