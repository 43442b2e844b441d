"""Print how far int8 is from float on held-out pictures, as Markdown tables.

    python -m tools.accuracy_table MODEL CALIBRATION HELD_OUT --mean 127.5 --std 127.5 [--colour bgr]
    python -m tools.accuracy_table MODEL CALIBRATION HELD_OUT --mean .. --std .. --ablation
    python -m tools.accuracy_table MODEL CALIBRATION HELD_OUT --mean .. --std .. --decoded [--into NUMBERS.md]

MODEL is any model that ``graphcut split`` accepts. CALIBRATION and HELD_OUT are folders of pictures, and HELD_OUT is
used only for evaluation. Without ``--ablation`` and ``--decoded``, the table has the dB and the share of equal classes
for each effort. With ``--ablation``, it has the dB of *plain* int8, without any method, and with one method after the
other. With ``--decoded``, the decoded results (boxes, masks, classes: :mod:`graphcut.evaluation`) of float, the chain
and plain int8 are compared. Plain int8 is the output of onnx2tf and ai-edge-quantizer for the same ONNX file and
calibration pictures, with default options; of a Keras model, TensorFlow's TFLiteConverter is compared too. ``--into``
writes the rows into a page and replaces earlier rows of the same model.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

import graphcut
from graphcut import samples as sampling
from graphcut.conversion.workers import converters
from graphcut.evaluation import truth
from graphcut.evaluation.figures import FLOAT, INT8
from graphcut.evaluation.measure import EvaluateOptions, chosen, task_of
from graphcut.graph.model import Model
from graphcut.measurement.metrics import sqnr_db, to_nhwc
from graphcut.records import Array, Figure, Preprocessing, Samples
from graphcut.runtime import litert
from graphcut.settings import Effort, Method
from graphcut.split_folder import Split
from graphcut.workers.pool import Call

EFFORTS: tuple[Effort, ...] = ("fast", "normal", "high")
PLAIN = "plain int8"
CONVERTER = "TFLiteConverter"
ORDER: tuple[Method, ...] = ("ranges", "weights", "biases", "equalise")
"""In which ``--ablation`` adds the methods."""

BEGIN, END = "<!-- accuracy_table.py begin -->", "<!-- accuracy_table.py end -->"


def main() -> None:
    """Split the model and print the comparison with float on the held-out pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("calibration", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--mean", type=float, nargs="+", required=True)
    parser.add_argument("--std", type=float, nargs="+", required=True)
    parser.add_argument("--colour", choices=("rgb", "bgr"), default="rgb")
    parser.add_argument("--input", action="append", default=[], metavar="NAME:1x3x224x224")
    parser.add_argument("--efforts", nargs="+", choices=EFFORTS, default=EFFORTS[:2])
    parser.add_argument("--without", action="append", choices=get_args(Method), default=[])
    parser.add_argument("--ablation", action="store_true", help="add one method after the other")
    parser.add_argument("--decoded", action="store_true", help="compare the decoded results, also with plain int8")
    parser.add_argument("--score", type=float, help="lowest score of a box or of a pixel of a mask")
    parser.add_argument("--segments", type=int, default=2)
    parser.add_argument("--into", type=Path, metavar="NUMBERS.md")
    arguments = parser.parse_args()
    shapes = {name: [int(size) for size in shape.split("x")] for name, shape in (i.split(":") for i in arguments.input)}
    model = graphcut.load(arguments.model, input_shapes=shapes)
    pixels = Preprocessing(mean=tuple(arguments.mean), std=tuple(arguments.std), colour=arguments.colour)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.decoded:
            taken = sampling.load_samples(arguments.calibration, model.inputs, pixels)
            made = graphcut.split(model, calibration=taken, out=Path(folder) / "out", segments=arguments.segments)
            path = onnx_path = Path(arguments.model)
            others: dict[str, bytes | str] = {}
            if path.suffix == ".onnx" and shapes:
                onnx_path = with_shapes(path, Path(folder) / f"{path.stem}.onnx", shapes)
            elif path.suffix != ".onnx":
                onnx_path = graphcut.export(path, Path(folder) / f"{path.stem}.onnx", input_shapes=shapes)
            if path.suffix in (".h5", ".keras"):
                others[CONVERTER] = by_converter(path, taken)
            others[PLAIN] = plain_int8(onnx_path, Path(folder), taken)
            lines = decoded(made, others, arguments.held_out, pixels, arguments.score)
            print("\n".join(lines))
            if arguments.into is not None:
                put(arguments.into, Path(arguments.model).stem, lines)
            return
        if arguments.ablation:
            taken = sampling.load_samples(arguments.calibration, model.inputs, pixels)
            plain = plain_int8(Path(arguments.model), Path(folder), taken)
            print("\n".join(ablation(model, arguments, pixels, plain, Path(folder))))
            return
        print("| effort | output | dB, held out | top-1 as in float |\n|---|---|---|---|")
        for effort in arguments.efforts:
            out = Path(folder) / effort
            made = graphcut.split(
                model,
                calibration=arguments.calibration,
                out=out,
                preprocessing=pixels,
                effort=effort,
                without=arguments.without,
            )
            proved = made.verify(calibration=arguments.held_out)
            for output, decibels in proved.sqnr_db.items():
                top1 = "" if proved.top1_agreement is None else f"{proved.top1_agreement:.0%}"
                print(f"| {effort} | {output} | {decibels:.1f} | {top1} |", flush=True)


def plain_int8(path: Path, folder: Path, samples: Samples) -> bytes | str:
    """Return the plain int8 file, or the reason why there is none in one line."""
    feeds = [[array[at : at + 1] for array in samples.arrays.values()] for at in range(len(samples))]
    with converters(1) as pool:
        call = Call(
            function="tools.accuracy_table:quantised_plainly", argument=(path, folder, feeds), subject=path.stem
        )
        try:
            (made,) = pool.map([call])
        except (graphcut.GraphcutError, RuntimeError, ValueError, OSError) as error:
            return str(error).strip().splitlines()[-1][:100].replace("|", "/")
    return bytes(made)


def quantised_plainly(argument: tuple[Path, Path, list[list[Array]]]) -> bytes:
    """Quantise onnx2tf's float file with ai-edge-quantizer and the ranges that it observes (runs in a worker)."""
    from ai_edge_quantizer import qtyping, quantizer, recipe_manager

    from graphcut.tflite import from_onnx

    path, folder, feeds = argument
    data = from_onnx.convert(path, folder / "scratch", path.stem)
    recipe = recipe_manager.RecipeManager()
    recipe.add_static_config(
        regex=".*", operation_name=qtyping.TFLOperationName.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8
    )
    tool = quantizer.Quantizer(bytearray(data), recipe.get_quantization_recipe())
    inputs = litert.Runner(data).inputs
    names = [_signature_name(str(each["name"])) for each in inputs]
    shaped = ([shaped_as(*each) for each in zip(arrays, inputs, strict=True)] for arrays in feeds)
    said = {"serving_default": [dict(zip(names, arrays, strict=True)) for arrays in shaped]}
    result = tool.quantize(tool.calibrate(said)).quantized_model
    if result is None:
        raise RuntimeError("the quantiser returned nothing")
    return bytes(result)


def with_shapes(path: Path, target: Path, shapes: Mapping[str, Sequence[int]]) -> Path:
    """Write an ONNX file with the shapes of its inputs; onnx2tf takes 1 for open dimensions."""
    import onnx

    model = onnx.load(path)
    for value in model.graph.input:
        for dimension, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            dimension.dim_value = size
    onnx.save(model, target)
    return target


def by_converter(path: Path, samples: Samples) -> bytes | str:
    """Return TFLiteConverter's int8 file of a Keras model (keras extra), or one line that says why there is none."""
    feeds = [[to_nhwc(array[at : at + 1]) for array in samples.arrays.values()] for at in range(len(samples))]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(converted_by_tensorflow, path, feeds).result()
        except (ImportError, RuntimeError, ValueError, OSError, BrokenExecutor) as error:
            return str(error).strip().splitlines()[-1][:100].replace("|", "/")


def converted_by_tensorflow(path: Path, feeds: list[list[Array]]) -> bytes:
    """Run in a process of its own: int8 by TFLiteConverter, with pictures as its representative data set."""
    import keras
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(keras.models.load_model(path, compile=False))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: iter(feeds)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def shaped_as(values: Array, detail: Mapping[str, Any]) -> Array:
    """A picture (NCHW) as an input of the plain file wants it.

    onnx2tf takes every input for NCHW, and turns one that is NHWC in the ONNX file too. The quantiser does not check
    shapes: arrays of another shape crash it.

    Raises:
        ValueError: it wants another shape.
    """
    shape = tuple(int(size) for size in detail["shape"])
    for form in (to_nhwc(values), to_nhwc(to_nhwc(values)), values):
        if form.shape == shape:
            return form
    raise ValueError(f"the plain file wants {shape}, and pictures are {values.shape}")


def _signature_name(name: str) -> str:
    return name.removeprefix("serving_default_").removesuffix(":0")


def ablation(
    model: Model, arguments: argparse.Namespace, pixels: Preprocessing, plain: bytes | str, folder: Path
) -> list[str]:
    """Split without any method, then with one after the other: a row of dB on the held-out pictures per output."""
    rows: dict[str, list[str]] = {}
    for count in range(len(ORDER) + 1):
        made = graphcut.split(
            model,
            calibration=arguments.calibration,
            out=folder / f"with{count}",
            segments=arguments.segments,
            preprocessing=pixels,
            without=ORDER[count:],
            min_sqnr=0,
        )
        for output, decibels in made.verify(calibration=arguments.held_out).sqnr_db.items():
            rows.setdefault(output, []).append(f"{decibels:.1f}")
    if isinstance(plain, str):
        peers = [plain] * len(rows)
    else:
        taken = sampling.load_samples(arguments.held_out, made.manifest.inputs, pixels)
        peers = [f"{decibels:.1f}" for decibels in plain_db(made, taken, litert.Runner(plain))]
    name = Path(arguments.model).stem
    head = ["| model | output | plain int8 | no method | " + " | ".join(f"+ {method}" for method in ORDER) + " |"]
    head.append("|---|---|" + "---|" * (len(ORDER) + 2))
    return head + [
        f"| {name} | {output} | {peer} | {' | '.join(cells)} |"
        for (output, cells), peer in zip(rows.items(), peers, strict=True)
    ]


def plain_db(made: Split, taken: Samples, runner: litert.Runner) -> list[float]:
    """The signal-to-noise ratio of each output of the plain file, in dB."""
    wholes = floats(made, taken)
    found = []
    for number, wanted in enumerate(wholes):
        arrays = [array[number : number + 1] for array in taken.arrays.values()]
        found.append(arranged(run_plain(runner, arrays), wanted))
    return [
        sqnr_db(np.concatenate(wanted), np.concatenate(got))
        for wanted, got in zip(zip(*wholes, strict=True), zip(*found, strict=True), strict=True)
    ]


def decoded(
    made: Split, others: Mapping[str, bytes | str], held_out: Path, pixels: Preprocessing, score: float | None
) -> list[str]:
    """Evaluate on the held-out pictures and return one row per figure."""
    data = truth.read(held_out)
    options = EvaluateOptions(score=score)
    taken = sampling.of_several(data.files, made.manifest.inputs, pixels)
    wholes = floats(made, taken)
    chains = made.run(taken)
    runners = {way: litert.Runner(data) for way, data in others.items() if isinstance(data, bytes)}
    height, width = made.manifest.inputs[0].shape[2:]
    name, head = chosen(options, data, wholes[0], (height, width))
    task = task_of(name, head, options, data, (height, width))
    for number, wanted in enumerate(wholes):
        outputs = {FLOAT: wanted, INT8: list(chains[number].values())}
        arrays = [array[number : number + 1] for array in taken.arrays.values()]
        for way, runner in runners.items():
            outputs[way] = arranged(run_plain(runner, arrays), wanted)
        task.add(number, outputs)
    model, verdict = made.manifest.source.name, made.verification.verdict
    lines = [row(model, verdict, len(data), each) for each in task.outcome().figures]
    missing = [f"no file by {way}: {reason}" for way, reason in others.items() if isinstance(reason, str)]
    return [*lines, *(f"| {model} | {verdict} | {len(data)} | {said} | | | | |" for said in missing)]


def floats(made: Split, taken: Samples) -> list[list[Array]]:
    """Return the float model's outputs for each picture, NHWC."""
    from graphcut.result import reopen

    outputs = made.tails[0].outputs
    whole = reopen.float_whole(made.segments, outputs, taken)
    return [
        [
            to_nhwc(values[at * (rows := len(values) // len(taken)) : (at + 1) * rows])
            for values in (whole.outputs[tensor.layer] for tensor in outputs)
        ]
        for at in range(len(taken))
    ]


def run_plain(runner: litert.Runner, arrays: Sequence[Array]) -> list[Array]:
    """Return the outputs of the plain file as floats."""
    given = []
    for array, detail in zip(arrays, runner.inputs, strict=True):
        kind, (scale, zero_point) = np.dtype(detail["dtype"]), detail["quantization"]
        array = shaped_as(array, detail)
        given.append(array if kind == np.float32 else litert.quantise(array, scale, zero_point, kind.name))
    found = []
    for values, detail in zip(runner(given), runner.outputs, strict=True):
        scale, zero_point = detail["quantization"]
        found.append(litert.dequantise(values, scale, zero_point) if scale else np.asarray(values, np.float32))
    return found


def arranged(found: Sequence[Array], wanted: Sequence[Array]) -> list[Array]:
    """Return outputs in the order and layout of others, matched by shape; equal shapes keep their order.

    Raises:
        ValueError: there is no such order.
    """
    left, made = list(found), list[npt.NDArray[np.float32]]()
    for like in wanted:
        for place, values in enumerate(left):
            forms = [
                values,
                *([to_nhwc(values)] if values.ndim == 4 else [np.swapaxes(values, -1, -2)] if values.ndim > 1 else []),
            ]
            fitting = next((form for form in forms if form.shape == like.shape), None)
            if fitting is None and values.size == like.size and values.ndim != like.ndim:
                fitting = values.reshape(like.shape)
            if fitting is not None:
                made.append(np.asarray(fitting, np.float32))
                del left[place]
                break
        else:
            raise ValueError(f"no output of the plain file has the shape {like.shape}")
    return made


def row(model: str, verdict: str, pictures: int, figure: Figure) -> str:
    """Return one figure as a table row."""
    of = f" (of {figure.of})" if figure.of is not None else ""
    cells = [_shown(figure.values, way) for way in (FLOAT, INT8, PLAIN, CONVERTER)]
    return f"| {model} | {verdict} | {pictures} | {figure.name}{of} | {' | '.join(cells)} |"


def _shown(values: Mapping[str, float], way: str) -> str:
    return f"{values[way]:.3g}" if way in values else ""


def put(page: Path, model: str, lines: Sequence[str]) -> None:
    """Write rows into a page between its markers, replacing those of the same model."""
    text = page.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN, maxsplit=1)
    held, tail = rest.split(END, maxsplit=1)
    rows = [line for line in held.strip().splitlines() if not line.startswith(f"| {model} |")]
    known = [line for line in rows if re.match(r"\| \w", line) and not line.startswith("| model |")]
    intro = rows[: len(rows) - len(known)]
    table = "\n".join([*intro, *sorted([*known, *lines], key=lambda line: line.split("|")[1])])
    page.write_text(f"{head}{BEGIN}\n\n{table}\n\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
