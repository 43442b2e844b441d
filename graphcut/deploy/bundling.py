"""A bundle: one way of running a split, with the code to run it, for a machine without graphcut.

1. It contains the parts, with compiled files if there are any, ``meta.json``, ``run.py``, and the modules that it needs
   in a folder ``graphcut``. These are the same modules as here. They import numpy, Pillow for pictures, and one
   interpreter, and work with Python 3.9 or newer (a test checks their grammar and imports).
2. ``check.npz`` contains one input and every tensor that the parts computed from it here, so that the other machine can
   check its results. The bytes are the same only in the same interpreter and kernel set.
3. With the layout "coral" the compiled parts have the names that pycoral and libcoral, and programs that use them,
   look for: ``NAME_segment_0_of_3_edgetpu.tflite``. Their runner (pipelined_model_runner.cc of libcoral) takes
   the inputs of the first segment and gives the outputs of the last one; a tensor may pass segments by, but one that
   leaves the model earlier, or enters it later, ends the program. :func:`coral_trouble` says where a split does that.
4. ``segments.service`` and ``Dockerfile`` start ``run.py --watch``, as a service of systemd and in a container.
5. It is written atomically (:mod:`graphcut.result.layout`); the same split gives the same bytes.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np

from graphcut import files, numpy_files, staging
from graphcut.errors import UsageError, setting
from graphcut.records import Array, Preprocessing
from graphcut.regular_file import text_of
from graphcut.result import layout as folders
from graphcut.runtime.chain import Chain
from graphcut.runtime.interpreter import AnyArray, Edge, Part, in_order
from graphcut.runtime.isolated import IsolatedOpener
from graphcut.runtime.job_folder import MANIFEST, RUNTIME_KEY, Job, document, read_job
from graphcut.runtime.wiring import Flow
from graphcut.units import format_bytes

_PACKAGE = Path(__file__).resolve().parents[1]
DEVICE_MODULES = (
    "errors.py",
    "regular_file.py",
    *sorted(f"runtime/{path.name}" for path in (_PACKAGE / "runtime").glob("*.py") if path.name != "isolated.py"),
    "workers/remote_object.py",
    "workers/remote_object_main.py",
)
"""Modules that run on a device (statement 1); a bundle comes with code, so its files need no process apart."""
RUNNER = "cli/bundle_main.py"

_SCHEMA_VERSION = 1
_INIT = '"""The part of graphcut that runs on a device; graphcut bundle put it here."""\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The written bundle.

    Attributes:
        folder: the folder.
        way: of running.
        parts: label, bytes, compiled bytes or None.
        total_bytes: of all files.
        coral_trouble: with the layout "coral" what the runners of pycoral and libcoral cannot do, in words.
    """

    folder: Path
    way: str
    parts: tuple[tuple[str, int, int | None], ...]
    total_bytes: int
    coral_trouble: tuple[str, ...] = ()


Layout = Literal["graphcut", "coral"]
"""How the files of parts are named (statement 3)."""


def bundle(
    split: Path,
    out: Path,
    *,
    tail: int | None = None,
    unsplit: bool = False,
    preprocessing: Preprocessing | None = None,
    labels: Path | None = None,
    layout: Layout = "graphcut",
    force: bool = False,
) -> Bundle:
    """Write a bundle.

    Args:
        split: a folder that graphcut split wrote.
        out: the folder to write.
        tail: seg1 .. seg(tail-1) and the tail from segment ``tail``; None for the chain.
        unsplit: the whole model in one file.
        preprocessing: from pixels to the model's input, where the split does not have it or to override it.
        labels: class names to include, one per line.
        layout: how parts are named.
        force: replace an earlier bundle.

    Raises:
        UsageError: the folder or way does not exist, ``out`` is in use, or a part is not compiled for "coral".
        RunError: a part cannot be run.
        OutputError: ``out`` cannot be written.
    """
    job = read_job(split, tail=tail, unsplit=unsplit)
    if preprocessing is not None:
        job = job._replace(preprocessing=asdict(preprocessing))
    meta = document(split)
    names = _read_labels(labels)
    opener = IsolatedOpener()
    if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(split)):
        raise UsageError(f"{out} is inside the split itself", f"choose another folder with {setting('out')}")
    staging.check_target(out, force)
    if layout == "coral":
        _require_compiled(job)
    with Chain(job.parts, opener, inputs=job.inputs, outputs=job.outputs) as chain:
        inputs, outputs = chain.inputs, chain.outputs
        trouble = coral_trouble(chain.flow) if layout == "coral" else ()
        values = chain.run_all(_check_input(split, meta, inputs))
    with staging.staging(out, force) as folder:
        stems = [part.path.stem for part in job.parts]
        if layout == "coral":
            stems = [f"{_plain(job.name)}_segment_{at}_of_{len(stems)}" for at in range(len(stems))]
        parts = [_place_part(folder, part, stem) for part, stem in zip(job.parts, stems, strict=True)]
        kept: dict[str, Any] = {**values, RUNTIME_KEY: np.array(opener.describe())}
        files.write_arrays(folder / "check.npz", kept)
        _copy_code(folder)
        if names is not None:
            (folder / "labels.txt").write_text(names, encoding="utf-8")
        described = _meta(meta, job, parts, folder, inputs, outputs, opener.describe())
        (folder / "README.md").write_text(_readme(described, trouble), encoding="utf-8")
        for name, text in SERVICE_FILES.items():
            (folder / name).write_text(text, encoding="utf-8")
        described["files"] = {
            path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": files.sha256_of(path)}
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        (folder / MANIFEST).write_text(files.json_text(described), encoding="utf-8")
        total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    sizes = [(part["label"], part["bytes"], part.get("compiled_bytes")) for part in described["parts"]]
    return Bundle(folder=out, way=job.way, parts=tuple(sizes), total_bytes=total, coral_trouble=trouble)


def coral_trouble(flow: Flow) -> tuple[str, ...]:
    """What of a flow the pipelined runners of pycoral and libcoral cannot do (statement 3), a sentence each."""
    found = []
    first = {edge.name for edge in flow.parts[0].inputs}
    late = [edge.name for edge in flow.inputs if edge.name not in first]
    if late:
        found.append(f"{', '.join(late)} is an input of the model, and {flow.parts[0].label} does not read it")
    last = {edge.name for edge in flow.parts[-1].outputs}
    early = [edge.name for edge in flow.outputs if edge.name not in last]
    if early:
        found.append(f"{', '.join(early)} is an output of the model, and {flow.parts[-1].label} does not make it")
    return tuple(found)


def _require_compiled(job: Job) -> None:
    parts = job.parts[:-1] if job.rest_on_cpu else job.parts
    missing = [part.label for part in parts if part.compiled is None]
    if missing:
        raise UsageError(
            f"the layout coral is for compiled files, and {missing[0]} is not compiled", "run graphcut compile first"
        )


def _plain(name: str) -> str:
    """A model's name as part of a file's."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", Path(name).stem).strip("_.-") or "model"


def _read_labels(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return text_of(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as labels", "pass a text file with one name per line") from error


def _check_input(split: Path, meta: Mapping[str, Any], edges: Sequence[Edge]) -> list[AnyArray]:
    """The first calibration sample as int8; seeded noise if none was kept."""
    samples = split / folders.SAMPLES
    if samples.is_file() and meta.get("inputs"):
        names = {each["int8"]["layer"]: each["name"] for each in meta["inputs"]}
        try:
            kept = numpy_files.members(samples, [names[edge.name] for edge in edges])
        except (numpy_files.BadArraysError, KeyError) as error:
            raise UsageError(f"{samples} cannot be read ({error})", "split the model again") from error
        return in_order({edge.name: _nhwc(each[:1]) for edge, each in zip(edges, kept, strict=True)}, edges)
    rng = np.random.default_rng(0)
    return [rng.integers(-128, 128, edge.shape, dtype=np.int8).astype(edge.dtype) for edge in edges]


def _nhwc(array: Array) -> Array:
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if array.ndim == 4 else array


def _place_part(folder: Path, part: Part, stem: str) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    for key, source, name in (
        ("file", part.path, f"{stem}.tflite"),
        ("compiled", part.compiled, f"{stem}_edgetpu.tflite"),
    ):
        if source is None:
            continue
        target = folder / "parts" / name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, target)
        size_key, hash_key = ("bytes", "sha256") if key == "file" else ("compiled_bytes", "compiled_sha256")
        entry |= {key: f"parts/{name}", size_key: target.stat().st_size, hash_key: files.sha256_of(target)}
    return entry


def _copy_code(folder: Path) -> None:
    for name in DEVICE_MODULES:
        target = folder / "graphcut" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_PACKAGE / name, target)
    for name in ("", "runtime", "workers"):
        (folder / "graphcut" / name / "__init__.py").write_text(_INIT, encoding="utf-8")
    shutil.copyfile(_PACKAGE / RUNNER, folder / "run.py")


def _meta(
    meta: Mapping[str, Any],
    job: Job,
    files_of_parts: Sequence[Mapping[str, Any]],
    folder: Path,
    inputs: Sequence[Edge],
    outputs: Sequence[Edge],
    runtime: str,
) -> dict[str, Any]:
    verified = meta.get("verification", {})
    return {
        "schema_version": _SCHEMA_VERSION,
        "graphcut_version": _version(),
        "source": dict(meta.get("source") or {"name": job.name}),
        "way": job.way,
        "parts": [{"label": part.label, **file} for part, file in zip(job.parts, files_of_parts, strict=True)],
        "inputs": [{"int8": _edge(edge)} for edge in inputs],
        "outputs": [_edge(edge) for edge in outputs],
        "options": {"preprocessing": job.preprocessing},
        "calibration": {"synthetic": job.synthetic},
        "deployment": job.deployment,
        "rest_on_cpu": job.rest_on_cpu,
        "verification": {key: verified[key] for key in ("passed", "exact", "samples", "sqnr_db") if key in verified},
        "check": {"file": "check.npz", "runtime": runtime, "sha256": files.sha256_of(folder / "check.npz")},
    }


def _edge(edge: Edge) -> dict[str, Any]:
    return {
        "layer": edge.name,
        "shape": list(edge.shape),
        "dtype": edge.dtype,
        "scale": edge.scale,
        "zero_point": edge.zero_point,
    }


def _version() -> str:
    try:
        return metadata.version("graphcut")
    except metadata.PackageNotFoundError:
        return "unknown"


def _readme(meta: Mapping[str, Any], trouble: Sequence[str]) -> str:
    """The README of the bundle."""
    inputs = [each["int8"] for each in meta["inputs"]]
    rows = []
    for part in meta["parts"]:
        compiled = format_bytes(part["compiled_bytes"]) if "compiled_bytes" in part else "-"
        rows.append(f"| {part['label']} | `{part['file']}` | {format_bytes(part['bytes'])} | {compiled} |")
    lines = [
        f"# {meta['source'].get('name')}, {meta['way']}",
        "",
        "A network in int8 TFLite segments, and a program that runs them one after the other or as a pipeline.",
        "",
        *(
            ["**Calibrated with SYNTHETIC data: accuracy on real data is unknown.**", ""]
            if meta["calibration"]["synthetic"]
            else []
        ),
        "Needs Python 3.9 or newer, numpy, Pillow (for pictures) and one interpreter:",
        "",
        "    pip install numpy pillow ai-edge-litert",
        '    pip install "numpy<2" pillow tflite-runtime     # older devices, Python 3.9 to 3.11',
        "",
        "    python run.py --check               # compare this machine's results with the original ones",
        "    python run.py PICTURE.jpg           # the best classes; also .npy and .npz",
        *_several(meta),
        "    python run.py --doctor              # interpreter, libedgetpu, Edge TPUs, rights: what is in the way?",
        "    python run.py --watch FOLDER        # results of the pictures that come there, a line of JSON each",
        "    python run.py --help",
        "",
        *(
            [f"The pipelined runners of pycoral and libcoral cannot run it: {'; '.join(trouble)}.", ""]
            if trouble
            else []
        ),
        "`segments.service` runs it under systemd, `Dockerfile` in a container; both say how.",
        "",
        *([] if _compiled(meta) else [_NOT_COMPILED, ""]),
        "| part | file | int8 | compiled for the Edge TPU |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
        *(f"Input `{each['layer']}`: {_described(each)}" for each in inputs),
        *(f"Output `{each['layer']}`: {_described(each)}" for each in meta["outputs"]),
        "",
    ]
    return "\n".join(lines)


def _several(meta: Mapping[str, Any]) -> list[str]:
    """How it runs on several devices."""
    if meta["deployment"] is not None:
        return ["    python run.py *.jpg                 # several, as a pipeline on the devices it was planned for"]
    return [f"    python run.py *.jpg --devices {_devices(meta)}    # {_WAYS[_compiled(meta)]}"]


SERVICE_FILES = {
    "segments.service": """# Results of pictures that come into /var/lib/graphcut/in, as JSON in the journal:
#   sudo cp -r . /opt/graphcut && sudo python3 -m venv /opt/graphcut/venv
#   sudo /opt/graphcut/venv/bin/pip install numpy pillow ai-edge-litert
#   sudo cp /opt/graphcut/segments.service /etc/systemd/system/ && sudo systemctl enable --now segments
#   journalctl -u segments -f
[Unit]
Description=int8 segments on Edge TPUs
After=local-fs.target

[Service]
ExecStart=/opt/graphcut/venv/bin/python /opt/graphcut/run.py --watch /var/lib/graphcut/in --json
StateDirectory=graphcut graphcut/in
DynamicUser=yes
SupplementaryGroups=plugdev
Restart=on-failure
RestartSec=5

[Install]
WantedBy=multi-user.target
""",
    "Dockerfile": """# docker build -t model . && docker run --rm -v $PWD/in:/in model
# With Edge TPUs: install libedgetpu below, and add --device /dev/bus/usb (or --device /dev/apex_0) to docker run.
FROM python:3.12-slim
RUN pip install --no-cache-dir numpy pillow ai-edge-litert
COPY . /model
ENTRYPOINT ["python", "/model/run.py"]
CMD ["--watch", "/in", "--json"]
""",
}
"""Files that start a bundle (statement 4)."""

_WAYS = {True: "a pipeline on Edge TPUs", False: "a pipeline on this CPU"}
_NOT_COMPILED = (
    "These files are not compiled for the Edge TPU, so they run on the CPU. For Edge TPUs, run "
    "`graphcut compile OUT` on the split and bundle it again."
)


def _compiled(meta: Mapping[str, Any]) -> bool:
    """Whether every part for the Edge TPU has a compiled file."""
    parts = meta["parts"][:-1] if meta["rest_on_cpu"] else meta["parts"]
    return all("compiled_bytes" in part for part in parts)


def _devices(meta: Mapping[str, Any]) -> str:
    """A device for every part that can run it."""
    count = len(meta["parts"])
    devices = [f"usb:{index}" if _compiled(meta) else "cpu" for index in range(count)]
    return ",".join([*devices[:-1], "cpu"] if meta["rest_on_cpu"] else devices)


def _described(edge: Mapping[str, Any]) -> str:
    shape = "x".join(map(str, edge["shape"]))
    return f"{edge['dtype']} {shape}, scale {edge['scale']:.9g}, zero point {edge['zero_point']}  "
