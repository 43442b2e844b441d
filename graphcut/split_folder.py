"""A split in a folder as an object: read it, run it, measure it, ship it.

:func:`graphcut.open` and :func:`graphcut.split` return a :class:`Split`. Its methods are the verbs of the command line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from graphcut.progress import Report, silent
from graphcut.records import (
    Array,
    ConvertedSegment,
    Evaluation,
    OperatorError,
    Plan,
    Preprocessing,
    Samples,
    Tail,
    Verification,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from graphcut.deploy.benchmark import Bench
    from graphcut.deploy.bundling import Bundle
    from graphcut.deploy.compilation import CompiledSplit
    from graphcut.deploy.simulation import Simulated
    from graphcut.edgetpu.file_cost import FileCost
    from graphcut.edgetpu.operator_check import Check
    from graphcut.evaluation.tasks import TaskName
    from graphcut.result.manifest import Manifest
    from graphcut.runtime.chain import Chain
    from graphcut.runtime.interpreter import Opener
    from graphcut.runtime.pipeline import Pipeline

Images = str | Path | Array | Sequence[str | Path] | Samples


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Split:
    """A split: the folder, and what its manifest says.

    Attributes:
        folder: as ``graphcut split`` wrote it.
        manifest: the content of ``meta.json``.
    """

    folder: Path
    manifest: Manifest = field(repr=False)

    @classmethod
    def of(cls, folder: Path) -> Split:
        """Read the manifest of a folder.

        Raises:
            UsageError: the folder is not a split, or its manifest is damaged.
        """
        from graphcut.result import manifest

        return cls(folder=folder, manifest=manifest.read(folder))

    @property
    def plan(self) -> Plan:
        """The plan, with measured sizes."""
        return self.manifest.plan

    @property
    def segments(self) -> tuple[ConvertedSegment, ...]:
        """The segments of the chain, in order."""
        return self.manifest.segments

    @property
    def tails(self) -> tuple[Tail, ...]:
        """The tails: the unsplit model first."""
        return self.manifest.tails

    @property
    def verification(self) -> Verification:
        """The result of the verification when the split was made."""
        return self.manifest.verification

    @property
    def preprocessing(self) -> Preprocessing | None:
        """Preprocessing of pictures; None if unknown."""
        return self.manifest.preprocessing

    def run(
        self,
        images: Images,
        *,
        tail: int | None = None,
        devices: int | str = "",
        preprocessing: Preprocessing | None = None,
        report: Report = silent,
    ) -> tuple[Mapping[str, Array], ...]:
        """Run inputs through the chain, or through a prefix and its tail.

        Args:
            images: a picture, several, a folder, an ``.npy`` or ``.npz`` file, samples, or an array
                (N, height, width, 3) of pixels 0..255.
            tail: segments 1 .. tail-1 and the tail from segment ``tail``; 1 for the unsplit model; None for the chain.
            devices: so many, or "usb:0,usb:1"; several make a pipeline. "" for what was planned, or the CPU.
            preprocessing: from pixels to the model's input; None for the one that the split was made with.
            report: receives faults.

        Returns:
            For each input: layer name of each output -> float32 values (NHWC where the rank is 4).

        Raises:
            CalibrationError: an input cannot be read or has another shape.
            VerificationError: a file is not the one that was verified.
            RunError: a part cannot be opened or run.
        """
        from graphcut.result import reopen

        samples = self._samples(images, preprocessing, report)
        return reopen.run(self.folder, samples, tail, devices=str(devices), report=report)

    def _samples(self, images: Images, preprocessing: Preprocessing | None, report: Report) -> Samples:
        from graphcut import samples

        if isinstance(images, Samples):
            return images
        prepared = preprocessing or self.preprocessing
        if not isinstance(images, str | Path):
            return samples.of_several(images, self.manifest.inputs, prepared, report=report)
        return samples.load_samples(images, self.manifest.inputs, prepared, report=report)

    def chain(self, *, tail: int | None = None, opener: Opener | None = None) -> Chain:
        """Open the parts to run one after the other; close it, or use it in a ``with`` statement.

        Every file is run once in a process of its own before it is opened in this one.

        Args:
            tail: as in :meth:`run`.
            opener: opens files in interpreters; None for two threads each on the CPU.

        Raises:
            RunError: a part cannot be opened.
        """
        from graphcut.runtime import isolated
        from graphcut.runtime.chain import Chain
        from graphcut.runtime.job_folder import read_job
        from graphcut.runtime.litert import LiteRtOpener

        job = read_job(self.folder, tail=tail)
        made = opener or LiteRtOpener(threads=2)
        isolated.try_out(job.parts, made)
        return Chain(job.parts, made, inputs=job.inputs, outputs=job.outputs)

    def pipeline(
        self,
        *,
        devices: int | str = "",
        tail: int | None = None,
        opener: Opener | None = None,
        rebalance: bool = False,
    ) -> Pipeline:
        """Open the parts to run in parallel; close it, or use it in a ``with`` statement.

        Every file is run once in a process of its own before it is opened in this one.

        Args:
            devices: so many, or "usb:0,usb:1,cpu"; "" for what was planned, or one CPU worker for each part.
            tail, opener: as in :meth:`chain`; one thread each.
            rebalance: move devices between segments when measured times say so.

        Raises:
            RunError: a part cannot be opened.
        """
        from graphcut.runtime import isolated
        from graphcut.runtime.job_folder import read_job
        from graphcut.runtime.litert import LiteRtOpener
        from graphcut.runtime.pipeline import Pipeline, Settings

        job = read_job(self.folder, tail=tail)
        made = opener or LiteRtOpener()
        isolated.try_out(job.parts, made)
        return Pipeline(
            job.parts,
            made,
            placement=job.placement(str(devices)),
            inputs=job.inputs,
            outputs=job.outputs,
            settings=Settings(batch=job.batch),
            rebalance=rebalance,
        )

    def verify(self, *, calibration: str | Path | Samples | None = None, report: Report = silent) -> Verification:
        """Verify the split again.

        Args:
            calibration: other samples to verify with; None for those kept in the folder.
            report: receives progress.

        Returns:
            The result; ``passed`` is the verdict.

        Raises:
            VerificationError: files are missing or are not those that were written.
        """
        from graphcut.result import reopen
        from graphcut.samples import load_samples

        if calibration is not None and not isinstance(calibration, Samples):
            calibration = load_samples(calibration, self.manifest.inputs, self.preprocessing, report=report)
        return reopen.verify(self.folder, calibration, report)

    def diagnose(
        self, *, segment: int | None = None, samples: int = 4, report: Report = silent
    ) -> tuple[OperatorError, ...]:
        """Measure the error of every operator, by itself and in the chain, and keep it in ``meta.json``.

        Args:
            segment: the number of one; None for all.
            samples: most samples to run, of those that the split was judged on.
            report: receives progress.

        Returns:
            The operators that have a counterpart in the float model, the worst for the outputs first.

        Raises:
            VerificationError: files are missing or are not those that were written.
            OutputError: ``meta.json`` cannot be written.
        """
        from graphcut.measurement.operator_errors import severity
        from graphcut.result import diagnosis

        found = diagnosis.diagnose(self.folder, most=samples, report=report)
        chosen = [each for each in found if segment in (None, each.segment)]
        return tuple(sorted(chosen, key=severity))

    def bench(
        self,
        *,
        tail: int | None = None,
        devices: int | str = "",
        rounds: int = 5,
        inputs: int = 20,
        report: Report = silent,
    ) -> Bench:
        """Measure the chain, the pipeline and the unsplit model, in turns.

        Args:
            tail: as in :meth:`run`.
            devices: of the pipeline, or how many; "" for what was planned, or a CPU worker for each processor.
            rounds, inputs: turns of each way, and inferences in a turn.
            report: receives progress.

        Raises:
            RunError: a part cannot be opened or run.
            VerificationError: the ways give different results.
        """
        from graphcut.deploy.benchmark import BenchOptions, bench
        from graphcut.runtime.devices import parse_devices
        from graphcut.runtime.job_folder import read_job
        from graphcut.runtime.litert import LiteRtOpener

        opener = LiteRtOpener()
        job, unsplit = read_job(self.folder, tail=tail), read_job(self.folder, unsplit=True)
        named = parse_devices(str(devices), job.kind) if devices else ()
        options = BenchOptions(rounds=rounds, inputs=inputs, devices=named)
        return bench(job, unsplit, opener, opener.describe(), options, report)

    def report(
        self,
        out: str | Path | None = None,
        *,
        labels: Sequence[str] = (),
        held_out: Images | None = None,
        force: bool = False,
        report: Report = silent,
    ) -> Path:
        """Write the split as one HTML file with figures.

        Args:
            out: the file to write; None for ``report.html`` in the folder, which is replaced.
            labels: names of the classes, by number; used where there are as many as classes.
            held_out: samples that the split was not calibrated with: it runs on them, and their error is shown
                separately.
            force: replace ``out`` if it exists.
            report: receives progress.

        Returns:
            The file.

        Raises:
            UsageError: ``out`` exists.
            CalibrationError: a held-out sample cannot be read or has another shape.
            OutputError: it cannot be written.
        """
        from graphcut import files
        from graphcut.report.html.collect import HeldOut
        from graphcut.report.html.write_report import write_report

        if out is not None:
            files.check_file(Path(out), force)
        apart = None
        if held_out is not None:
            samples = self._samples(held_out, None, report)
            apart = HeldOut(samples=samples, verification=self.verify(calibration=samples, report=report))
        return write_report(self.folder, None if out is None else Path(out), labels=labels, held_out=apart)

    def evaluate(
        self,
        data: str | Path,
        *,
        pictures: str | Path | None = None,
        task: TaskName | None = None,
        head: str | None = None,
        anchors: str | Path | Array | None = None,
        labels: Sequence[str] = (),
        score: float | None = None,
        iou: float = 0.45,
        samples: int | None = None,
        devices: str = "",
        preprocessing: Preprocessing | None = None,
        save: bool = False,
        report: Report = silent,
    ) -> Evaluation:
        """Judge the split by its task: compare the answers of int8 with float's, and with the right ones.

        Args:
            data: a folder of pictures; a folder with a folder for each class; pictures with YOLO labels or masks; a CSV
                file of file and label; a COCO JSON file. Without labels the float model is the reference.
            pictures: where the pictures of a CSV or JSON file lie; None for beside it.
            task: None to find it by the data and the outputs' shapes.
            head: the kind of a detector's outputs ("yolov8"); None to find it by their shapes.
            anchors: (n, 4) anchors of an SSD, or an ``.npy`` file of them: centre x, centre y, width, height, as
                fractions of the picture.
            labels: names of the model's classes, by number.
            score: lowest score of a box (None: 0.3) or of a foreground pixel (None: 0.5).
            iou: greatest overlap of two boxes of a class.
            samples: at most so many pictures, evenly spaced; None for all.
            devices: a further way of computing, such as "usb:0"; "" for none.
            preprocessing: from pixels to the model's input; None for the one that the split was made with.
            save: write the result into the manifest.
            report: receives progress.

        Raises:
            UsageError: task, head or labels do not fit the model or the data, or the data is damaged.
            CalibrationError: a picture cannot be read.
            RunError: a part cannot be opened or run.
        """
        from graphcut.evaluation import measure, truth
        from graphcut.report import evaluation_text
        from graphcut.runtime.devices import parse_devices

        given = truth.read(Path(data), None if pictures is None else Path(pictures)).first(samples)
        options = measure.EvaluateOptions(
            task=task,
            head=head,
            anchors=measure.anchors_of(anchors),
            labels=labels,
            score=score,
            iou=iou,
            preprocessing=preprocessing,
            devices=parse_devices(devices) if devices else (),
        )
        found = measure.evaluate(self.folder, given, options, report)
        if save:
            evaluation_text.save(self.folder, found)
        return found

    def draw(
        self,
        picture: str | Path,
        *,
        tail: int | None = None,
        task: TaskName | None = None,
        head: str | None = None,
        anchors: str | Path | Array | None = None,
        labels: Sequence[str] = (),
        score: float | None = None,
        iou: float = 0.45,
        preprocessing: Preprocessing | None = None,
    ) -> Image:
        """Run a picture, and draw the answer onto it: boxes, a mask, or the best classes.

        Args:
            picture: the file.
            tail: as in :meth:`run`.
            task, head, anchors, labels, score, iou: as in :meth:`evaluate`.
            preprocessing: as in :meth:`run`.

        Returns:
            The picture upright, in its own size, in RGB; ``show()`` and ``save()`` are Pillow's.

        Raises:
            UsageError: the task does not fit the outputs, or is one that cannot be drawn.
            CalibrationError: the picture cannot be read.
            RunError: a part cannot be opened or run.
        """
        from graphcut.evaluation import measure
        from graphcut.evaluation.draw import draw

        (outputs,) = self.run([picture], tail=tail, preprocessing=preprocessing)
        options = measure.EvaluateOptions(
            task=task,
            head=head,
            anchors=measure.anchors_of(anchors),
            labels=labels,
            score=score,
            iou=iou,
        )
        return draw(Path(picture), list(outputs.values()), measure.image_size(self.manifest.inputs), options)

    def simulate(
        self,
        *,
        devices: int | str | None = None,
        link: Literal["usb", "usb-x86", "pcie"] | None = None,
        inputs: int = 1000,
        tail: int | None = None,
    ) -> Simulated:
        """Estimate throughput and latency on Edge TPUs.

        Args:
            devices: how many, or their names ("usb:0,usb:1"); None for what was planned, or one for each part.
            link: how they are connected; None for how it was planned, or "usb".
            inputs: number of inputs, sent as fast as they are accepted.
            tail: as in :meth:`run`.

        Raises:
            UsageError: a device is not an Edge TPU.
        """
        from graphcut.deploy import part_costs
        from graphcut.deploy.simulation import Load, simulate
        from graphcut.prediction.latency import link_named
        from graphcut.runtime.job_folder import read_job

        job = read_job(self.folder, tail=tail)
        line = link_named(link or part_costs.link_of(job))
        parts = part_costs.of_folder(self.folder, line, tail=tail).parts
        placement = part_costs.placement_of(job, parts, devices, line)
        return simulate(parts, placement, line, Load(inputs=inputs), batch=job.batch)

    def check(self) -> tuple[Check, ...]:
        """Check every segment against the limits of the Edge TPU, operator by operator."""
        from graphcut.edgetpu import operator_check

        return tuple(operator_check.check(part.tflite_path) for part in self.segments)

    def cost(self) -> tuple[FileCost, ...]:
        """Predict the cost of every segment on the Edge TPU."""
        from graphcut.edgetpu import file_cost

        return tuple(file_cost.of_file(part.tflite_path) for part in self.segments)

    def compile(
        self,
        *,
        compiler: str | None = None,
        compiler_options: Sequence[str] = (),
        compile_seconds: int = 180,
        jobs: int = 2,
        report: Report = silent,
    ) -> CompiledSplit:
        """Compile every segment and tail for the Edge TPU, and record the result in the folder.

        Args:
            compiler: path of edgetpu_compiler, or "docker:IMAGE"; None for the one on PATH.
            compiler_options: further options of the compiler, such as ``("-d", "-k", "4")``.
            compile_seconds: time limit of one file.
            jobs: files at a time.
            report: receives progress.

        Raises:
            DependencyError: there is no compiler.
            OutputError: the folder cannot be written to.
        """
        from graphcut.deploy.compilation import compile_split, record
        from graphcut.edgetpu.compiler import find
        from graphcut.report import note

        found = replace(find(compiler), options=tuple(compiler_options))
        made = compile_split(self.folder, found, seconds=compile_seconds, jobs=jobs, report=report)
        record(made)
        note.write(self.folder)
        return made

    def bundle(
        self,
        out: str | Path,
        *,
        tail: int | None = None,
        unsplit: bool = False,
        labels: str | Path | None = None,
        preprocessing: Preprocessing | None = None,
        layout: Literal["graphcut", "coral"] = "graphcut",
        force: bool = False,
    ) -> Bundle:
        """Write a folder that runs without graphcut.

        Args:
            out: the folder to write; it is written atomically.
            tail, unsplit: which way of running; the chain without.
            labels: class names to include, one per line.
            preprocessing: from pixels to the model's input; None for the one that the split was made with.
            layout: names of the parts; "coral" for those that pycoral and libcoral expect.
            force: replace an earlier bundle.

        Raises:
            UsageError: there is no such tail, or ``out`` exists.
            OutputError: ``out`` cannot be written.
        """
        from graphcut.deploy.bundling import bundle

        return bundle(
            self.folder,
            Path(out),
            tail=tail,
            unsplit=unsplit,
            preprocessing=preprocessing or self.preprocessing,
            labels=None if labels is None else Path(labels),
            layout=layout,
            force=force,
        )

    @contextmanager
    def view(self, segment: int | None = None, *, onnx: bool = False, port: int | None = None) -> Iterator[str]:
        """Serve a segment, or the unsplit model, in Netron for as long as the block runs.

        Args:
            segment: its number; None for the unsplit model.
            onnx: the segment in float.
            port: the port to listen on; None for a free one.

        Yields:
            The address.

        Raises:
            UsageError: there is no such segment, or the port is taken.
        """
        from graphcut.report import netron

        with netron.serving(self.file(segment, onnx=onnx), port=port, browser=False) as address:
            yield address

    def file(self, segment: int | None = None, *, tail: int | None = None, onnx: bool = False) -> Path:
        """Return the path of a segment, a tail, or the unsplit model.

        Raises:
            UsageError: there is no such segment or tail, or its file is missing.
        """
        from graphcut.errors import UsageError

        number, last = segment or tail, len(self.segments)
        if number is not None and not 1 <= number <= last:
            raise UsageError(
                f"{self.folder} has {last} segments, so there is no segment {number}", f"choose 1 to {last}"
            )
        if segment is not None:
            part = self.segments[segment - 1]
            path = part.onnx_path if onnx else part.tflite_path
        elif onnx:
            raise UsageError("only segments are kept as ONNX", "choose a segment")
        else:
            path = next(each.tflite_path for each in self.tails if each.first == (tail or 1))
        if not path.is_file():
            raise UsageError(f"{path} is missing", "split the model again")
        return path

    def __repr__(self) -> str:
        """Show what it is and whether it passed."""
        largest = max(part.segment.tflite_bytes for part in self.segments) / 2**20
        verdict = "passed" if self.verification.passed else "failed"
        return (
            f"Split({self.manifest.source.name!r}, {len(self.segments)} segments, largest {largest:.3f} MiB, {verdict})"
        )

    def _repr_html_(self) -> str:
        """Show a table of segments and the verdict, in a notebook."""
        rows = "".join(
            f"<tr><td>{part.segment.index}</td><td>{escape(', '.join(part.segment.input_layers))}</td>"
            f"<td>{escape(', '.join(part.segment.output_layers))}</td>"
            f"<td>{part.segment.tflite_bytes / 2**20:.3f} MiB</td></tr>"
            for part in self.segments
        )
        head = "<tr><th>segment</th><th>from</th><th>to</th><th>int8 file</th></tr>"
        return f"<p>{escape(repr(self))}</p><table>{head}{rows}</table>"
