"""The layout of a split's folder.

1. Everything is written to a *staging folder* ``.OUT.partial-PID`` beside OUT, so on OUT's filesystem; the last
   act is one rename. An error, a full disk or Ctrl-C before it leaves OUT as it was and removes the staging folder.
2. An existing OUT is refused. With ``force`` an earlier result is kept as ``.OUT.old-PID`` until the new one stands
   in its place; a folder that this package did not write is never replaced.
3. Staging folders of processes that died (killed, power cut) are removed by the next run with the same OUT. Whether
   the owner lives is asked of a lock on the folder, which ends with the process, and not of the PID alone.
4. Same input, same bytes: no file holds a time, a process number or an absolute path.

Layout, K segments (files under ``pairs_k*`` and ``full_split`` that are the same are hard links of one file)::

    full_split/tflite/seg1_int8.tflite ..       the chain
    pairs_k2/tflite/seg1_int8.tflite            k = 2..K: seg1 .. seg(k-1), then one tail with the rest
    pairs_k2/tflite/tail_seg2_to_K_int8.tflite
    unsplit/unsplit_int8.tflite                 the whole model, the reference of the chain
    independent/whole_int8.tflite               the whole model converted in one piece, if requested
    segments/seg1.onnx ..                       the float segments, for Netron
    samples.npz                                 the calibration samples
    validation.npz                              the samples excluded from calibration, if there are any
    certificate.json                            the proof of the plan's claims
    job.toml                                    the options of ``graphcut split``, for ``--config``
    meta.json, note.txt                         description, for programs and for people
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from graphcut.files import write_arrays
from graphcut.records import ConvertedSegment, Samples, Tail

NOTE = "note.txt"
SAMPLES = "samples.npz"
VALIDATION = "validation.npz"
CERTIFICATE = "certificate.json"
JOB = "job.toml"


def segment_onnx(folder: Path, index: int) -> Path:
    """Name the float ONNX file of segment ``index`` (1 for the first)."""
    return folder / "segments" / f"seg{index}.onnx"


def segment_tflite(folder: Path, index: int) -> Path:
    """Name the int8 TFLite file of segment ``index`` in the chain."""
    return folder / "full_split" / "tflite" / f"seg{index}_int8.tflite"


def tail_tflite(folder: Path, first: int, last: int) -> Path:
    """Name the int8 TFLite file of segments first..last joined; ``first == 1`` is the unsplit model."""
    if first == 1:
        return folder / "unsplit" / "unsplit_int8.tflite"
    return folder / f"pairs_k{first}" / "tflite" / f"tail_seg{first}_to_{last}_int8.tflite"


def prefix_tflite(folder: Path, k: int, index: int) -> Path:
    """Name the int8 TFLite file of segment ``index < k`` in the combination k."""
    return folder / f"pairs_k{k}" / "tflite" / f"seg{index}_int8.tflite"


def independent_tflite(folder: Path) -> Path:
    """Name the int8 TFLite file of the whole model that was converted in one piece."""
    return folder / "independent" / "whole_int8.tflite"


def lay_out(
    folder: Path, segments: Sequence[ConvertedSegment], tails: Sequence[Tail], independent: Path | None = None
) -> None:
    """Put segments and tails where the layout says, as hard links where the filesystem has them.

    Files that lie in their place already stay. A tail of one segment alone (k == K), and the unsplit model when
    K == 1, are that segment's file.
    """
    last = len(segments)
    for converted in segments:
        index = converted.segment.index
        _place(converted.onnx_path, segment_onnx(folder, index))
        _place(converted.tflite_path, segment_tflite(folder, index))
    for tail in tails:
        _place(tail.tflite_path, tail_tflite(folder, tail.first, tail.last))
    _place(segment_tflite(folder, last), tail_tflite(folder, last, last))
    if independent is not None:
        _place(independent, independent_tflite(folder))
    for k in range(2, last + 1):
        for index in range(1, k):
            _place(segment_tflite(folder, index), prefix_tflite(folder, k, index))


def placed(
    folder: Path, segments: Sequence[ConvertedSegment], tails: Sequence[Tail]
) -> tuple[tuple[ConvertedSegment, ...], tuple[Tail, ...]]:
    """Return the records with the files where the layout has them."""
    last = len(segments)
    parts = (
        replace(
            each,
            onnx_path=segment_onnx(folder, each.segment.index),
            tflite_path=segment_tflite(folder, each.segment.index),
        )
        for each in segments
    )
    return tuple(parts), tuple(replace(each, tflite_path=tail_tflite(folder, each.first, last)) for each in tails)


def write_samples(folder: Path, samples: Samples, validation: Samples | None = None) -> None:
    """Keep the samples in the folder, so that it can be verified by itself."""
    write_arrays(folder / SAMPLES, samples.arrays)
    if validation is not None:
        write_arrays(folder / VALIDATION, validation.arrays)


def write_job(folder: Path, job: str) -> None:
    """Keep the options of the command line in the folder, so that the split can be repeated; "" for none."""
    if job:
        (folder / JOB).write_text(job, encoding="utf-8")


def _place(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``, or a copy where links are not to be had."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK}:
            raise
        shutil.copyfile(source, target)
