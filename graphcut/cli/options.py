"""Options shared by several verbs, and their conversion to records."""

from __future__ import annotations

import argparse
import math
import re
import shlex
from argparse import ArgumentParser, HelpFormatter, Namespace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from graphcut.errors import CalibrationError, ModelError, UsageError
from graphcut.records import ModelInput, Preprocessing, Samples, Shape
from graphcut.regular_file import text_of
from graphcut.settings import PlanSettings, RangeSettings, flag_of, positive, table

if TYPE_CHECKING:
    from graphcut.cli.console import Console
    from graphcut.graph.model import Model
    from graphcut.planning.plan_options import PlanOptions
    from graphcut.runtime.litert import LiteRtOpener
    from graphcut.runtime.processes import ProcessOpener


class _Help(HelpFormatter):
    """Help whose indented lines stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = text.splitlines()
        return "\n".join(
            f"{indent}{line}"
            if not line or line.startswith("  ")
            else super(_Help, self)._fill_text(line, width, indent)
            for line in lines
        )


class Parser(ArgumentParser):
    """A parser that raises :class:`UsageError`, so that its errors print as one line like all others."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Disable abbreviated options: they would break scripts when an option is added."""
        super().__init__(*args, **{"allow_abbrev": False, "formatter_class": _Help, **kwargs})
        self._unknown: list[str] = []

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Record unknown options and report them here: the top-level parser does not know the options of verbs."""
        options = [word.partition("=")[0] for word in args or () if word.startswith("--") and word != "--"]
        self._unknown = [option for option in options if option not in self._option_string_actions]
        found, rest = super().parse_known_args(args, namespace)
        if rest and self._subparsers is None:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Raise argparse's error; a misspelt option is reported before a missing one."""
        way_out = f"`{self.prog} --help` lists the options"
        if self._unknown and message.startswith("the following arguments are required"):
            message = f"unrecognized arguments: {' '.join(self._unknown)}"
        if self._unknown and message.startswith("unrecognized"):
            close = get_close_matches(self._unknown[0], list(self._option_string_actions), n=1)
            way_out = f"did you mean {close[0]}? {way_out}" if close else way_out
        choice = re.search(r"invalid choice: '(?P<word>.*?)' \(choose from (?P<known>.*)\)", message)
        if choice is not None:
            close = get_close_matches(choice["word"], re.findall(r"[\w-]+", choice["known"]), n=1)
            if message.startswith("argument VERB"):
                message, way_out = f"there is no verb {choice['word']!r}", f"`{self.prog} --help` lists the verbs"
            way_out = f"did you mean {close[0]}? {way_out}" if close else way_out
        raise UsageError(message, way_out)


SOURCES = (
    "an .onnx, .keras, .h5, .tflite or .pt2 file, a SavedModel folder, a recipe's name (resnet101), or "
    "package.module:factory, your own code that returns a torch.nn.Module"
)
"""The possible forms of MODEL, for help (docs/reference/sources.md)."""

_MOST_THREADS = 1024
_SUFFIXES = frozenset({".onnx", ".keras", ".h5", ".hdf5", ".tflite", ".pt2"})


def add_model(parser: ArgumentParser, what: str = SOURCES, *, optional: bool = False) -> None:
    """Add MODEL, which a job file may name where it is ``optional``, and how to read it."""
    parser.add_argument("model", metavar="MODEL", nargs="?" if optional else None, help=what)
    parser.add_argument(
        "--input",
        metavar="NAME:1x3x224x224",
        action="append",
        default=[],
        type=_input_shape,
        help="shape of an input, in the source's own layout, for open dimensions or another size; may be repeated",
    )
    parser.add_argument(
        "--input-layout",
        metavar="[NAME:]NHWC",
        action="append",
        default=[],
        type=_input_layout,
        help="layout of an input, or of all, in the source, if it cannot be detected (see inspect); may be repeated",
    )
    parser.add_argument(
        "--signature", metavar="NAME", help="signature of a SavedModel (default: serving_default, or the only one)"
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        type=Path,
        help="folder for exports to ONNX and for results of earlier runs (default: ~/.cache/graphcut)",
    )
    add_target(parser)


def add_target(parser: ArgumentParser) -> None:
    """Add the options that loading needs to make the graph that a plan is of."""
    add_settings(parser, RangeSettings)
    parser.add_argument(
        "--target",
        choices=("any", "edgetpu"),
        help="edgetpu: also apply rewrites that help on the Edge TPU only (default: edgetpu where --device, --devices "
        "or --until name it, else any)",
    )
    parser.add_argument(
        "--split-outputs",
        action="store_true",
        help="make the parts of joined outputs (boxes, scores) separate outputs, each with its own int8 scale",
    )


def add_settings(parser: ArgumentParser | argparse._ArgumentGroup, settings: type, *chosen: str) -> None:
    """Add the flags of settings that :mod:`graphcut.settings` declares; all of a class, or those named."""
    for name, each in table(settings).items():
        if chosen and name not in chosen:
            continue
        given: dict[str, Any] = {"dest": name, "help": each.help.replace("%", "%%")}
        if isinstance(each.default, bool):
            given["action"] = "store_false" if each.default else "store_true"
        elif each.choices:
            given |= {"choices": each.choices, "type": type(each.choices[0])}
            given |= {"metavar": each.metavar} if each.metavar else {}
        else:
            given |= {"metavar": each.metavar, "type": each.parse}
        given |= {"action": "append", "default": []} if each.repeat else {"default": each.default}
        parser.add_argument(*filter(None, (flag_of(name), each.alias)), **given)


def settings_of(arguments: Namespace, settings: type) -> dict[str, Any]:
    """Return the settings of a class as the Python API takes them."""
    given: dict[str, Any] = {}
    for name, each in table(settings).items():
        value = getattr(arguments, name)
        if each.repeat:
            value = dict(value) if name == "limits" else tuple(one for several in value for one in several)
        given[name] = value
    return given


def split_command(arguments: Namespace) -> str:
    """Write the command that splits as these arguments plan."""
    words = ["graphcut", "split", str(arguments.model)]
    for name, each in table(PlanSettings).items():
        value = getattr(arguments, name)
        if value in (each.default, [], None):
            continue
        several = value if each.repeat else [value]
        for one in several:
            if isinstance(one, bool):
                words.append(flag_of(name))
            elif isinstance(one, tuple):
                words += [flag_of(name), ("=" if name == "limits" else ",").join(map(str, one))]
            else:
                words += [flag_of(name), str(one)]
    for shape_of, shape in arguments.input:
        words += ["--input", f"{shape_of}:{'x'.join(map(str, shape))}"]
    for layout_of, layout in arguments.input_layout:
        words += ["--input-layout", f"{layout_of}:{layout}" if layout_of else layout]
    words += ["--signature", arguments.signature] if arguments.signature else []
    words += ["--target", arguments.target] if arguments.target else []
    words += ["--split-outputs"] if arguments.split_outputs else []
    return f"{shlex.join(words)} --calibration FOLDER -o OUT"


def add_plan(parser: ArgumentParser) -> None:
    """Add the options for where to cut."""
    add_settings(parser.add_argument_group("where to cut"), PlanSettings)


def add_seams(parser: ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the options for what may cross a cut."""
    add_settings(parser, PlanSettings, "max_seam_tensors", "min_rank")


def add_samples(parser: ArgumentParser, purpose: str) -> None:
    """Add the options for samples and preprocessing."""
    group = parser.add_argument_group("samples")
    group.add_argument(
        "--calibration",
        metavar="PATH|random",
        help=f"{purpose}: a folder of pictures, an .npy or .npz file, or random for synthetic samples",
    )
    group.add_argument(
        "--samples", metavar="N", type=positive, help="most samples to use (default: 100; 8 synthetic ones)"
    )
    group.add_argument("--seed", metavar="N", type=_seed, default=0, help="seed of synthetic samples (default: 0)")
    group.add_argument("--skip-unreadable", action="store_true", help="skip pictures that cannot be read")
    add_preprocessing(group)


def given_samples(arguments: Namespace) -> list[str]:
    """The options of :func:`add_samples` that were given, as they are written."""
    alone = ArgumentParser()
    add_samples(alone, "")
    untouched = vars(alone.parse_args([]))
    return [f"--{name.replace('_', '-')}" for name, value in untouched.items() if getattr(arguments, name) != value]


def add_preprocessing(group: argparse._ArgumentGroup | ArgumentParser) -> None:
    """Add the options for preprocessing samples."""
    add_pixels(group)
    group.add_argument(
        "--layout", choices=("auto", "NCHW", "NHWC"), default="auto", help="layout of arrays (default: auto, by shape)"
    )


def add_pixels(group: argparse._ArgumentGroup | ArgumentParser) -> None:
    """Add the options for preprocessing pixels."""
    group.add_argument(
        "--mean",
        metavar="X[,Y,Z]",
        type=_numbers,
        help="(pixel - mean) / std with pixels 0..255; one value, or one per channel",
    )
    group.add_argument("--std", metavar="X[,Y,Z]", type=_divisors, help="see --mean")
    group.add_argument("--colour", "--color", choices=("rgb", "bgr"), help="order of channels that the model expects")


TASKS = ("classification", "detection", "segmentation", "embedding", "values")
HEADS = ("yolox", "yolox-decoded", "yolov5", "yolov8", "end-to-end", "fastestdet", "ssd", "centernet")
"""What graphcut.evaluation knows; a test holds both lists against it."""


def add_task(parser: ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add what the model does, and how its outputs become boxes or masks."""
    parser.add_argument(
        "--task",
        choices=TASKS,
        metavar="TASK",
        help=f"what the model does: {', '.join(TASKS)} (default: found from the data and the outputs)",
    )
    parser.add_argument(
        "--head",
        choices=HEADS,
        metavar="HEAD",
        help=f"the kind of a detector's outputs: {', '.join(HEADS)} (default: found by their shapes)",
    )
    parser.add_argument(
        "--anchors",
        metavar="FILE.npy",
        type=Path,
        help="n x 4 anchors of an SSD: centre x, centre y, width, height, as fractions of the picture",
    )
    parser.add_argument(
        "--score",
        metavar="X",
        type=_fraction,
        help="lowest score of a box (default: 0.3), or of a foreground pixel of a mask with one channel (default: 0.5)",
    )
    parser.add_argument(
        "--iou",
        metavar="X",
        type=_fraction,
        default=0.45,
        help="greatest overlap of two boxes of a class (default: 0.45)",
    )


def add_runtime(parser: ArgumentParser, threads: int = 1) -> None:
    """Add the options for interpreters."""
    group = parser.add_argument_group("runtime")
    group.add_argument(
        "--runtime",
        choices=("auto", "ai-edge-litert", "tflite-runtime"),
        default="auto",
        help="interpreter (default: auto, ai-edge-litert if it is installed, else tflite-runtime)",
    )
    group.add_argument(
        "--threads",
        metavar="N",
        type=_threads,
        default=threads,
        help=f"threads of each interpreter on a CPU (default: {threads})",
    )
    group.add_argument(
        "--kernels",
        choices=("xnnpack", "builtin"),
        default="xnnpack",
        help="kernels of the interpreter on a CPU (default: xnnpack)",
    )
    group.add_argument("--processes", action="store_true", help="run each interpreter in a separate process")


def opener(arguments: Namespace, *, isolated: bool = False) -> LiteRtOpener | ProcessOpener:
    """Make the opener of files from the options of :func:`add_runtime`.

    Args:
        arguments: of the command line.
        isolated: run them in another process in any case, one for all (:mod:`graphcut.runtime.isolated`).

    Raises:
        DependencyError: the interpreter is not installed.
    """
    from graphcut.runtime.isolated import IsolatedOpener
    from graphcut.runtime.litert import LiteRtOpener
    from graphcut.runtime.processes import ProcessOpener

    kind = IsolatedOpener if isolated and not arguments.processes else LiteRtOpener
    made = kind(arguments.runtime, threads=arguments.threads, kernels=arguments.kernels)
    return ProcessOpener(made) if arguments.processes else made


def read_labels(path: Path) -> tuple[str, ...]:
    """Read the names of classes, one per line.

    Raises:
        UsageError: the file cannot be read as text.
    """
    try:
        return tuple(text_of(path).splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as labels", "pass a text file with one name per line") from error


def load_model(arguments: Namespace, console: Console) -> Model:
    """Load MODEL."""
    from graphcut import api

    shapes: dict[str, Shape] = dict(arguments.input)
    return api.load(
        arguments.model,
        input_shapes=shapes,
        input_layouts=dict(arguments.input_layout),
        cache=arguments.cache,
        signature=arguments.signature,
        target=arguments.target or _implied_target(arguments),
        split_outputs=arguments.split_outputs,
        inputs=arguments.inputs,
        outputs=arguments.outputs,
        reuse=arguments.reuse,
        report=console.report,
    )


def _implied_target(arguments: Namespace) -> str:
    """Return the target that the devices name; "any" for verbs without devices."""
    from graphcut import api

    return api.target_of(**settings_of(arguments, PlanSettings)) if hasattr(arguments, "devices") else "any"


def plan_options(arguments: Namespace) -> PlanOptions:
    """Turn the options of :func:`add_plan` into a record.

    Raises:
        UsageError: a size is not valid, or options contradict each other.
    """
    from graphcut import api

    return api.plan_options(**settings_of(arguments, PlanSettings))


def preprocessing(arguments: Namespace, known: Preprocessing | None) -> Preprocessing | None:
    """Return the preprocessing: that of the model, changed by the user's options.

    None where nothing is known and neither --mean nor --std is given.
    """
    given = (arguments.mean, arguments.std, arguments.colour)
    if known is None and (arguments.mean is None) != (arguments.std is None):
        missing, present = ("--std", "--mean") if arguments.std is None else ("--mean", "--std")
        raise UsageError(
            f"{present} is given without {missing}",
            f"add {missing} {1 if missing == '--std' else 0} if the model needs none",
        )
    if known is None and arguments.mean is None and arguments.std is None:
        return None
    base = known or Preprocessing()
    if given == (None, None, None):
        return base
    return Preprocessing(
        mean=base.mean if arguments.mean is None else arguments.mean,
        std=base.std if arguments.std is None else arguments.std,
        colour=arguments.colour or base.colour,
        layout=base.layout,
    )


def load_samples(
    arguments: Namespace,
    inputs: tuple[ModelInput, ...],
    prepared: Preprocessing | None,
    console: Console,
    spec: str | None = None,
) -> Samples:
    """Load the samples that the options of :func:`add_samples` name, or others with the same options."""
    from graphcut import samples as calibrate

    samples = calibrate.load_samples(
        spec or arguments.calibration,
        inputs,
        prepared,
        layout=arguments.layout,
        limit=arguments.samples,
        seed=arguments.seed,
        skip_unreadable=arguments.skip_unreadable,
        report=console.report,
    )
    if samples.synthetic:
        console.note("SYNTHETIC samples: they show that everything runs and agrees, but say nothing about accuracy")
    return samples


def require_model(source: str) -> None:
    """Refuse a missing MODEL file before checking other options.

    Raises:
        ModelError: there is no such file.
    """
    path = Path(source)
    if path.suffix.lower() in _SUFFIXES and not path.exists():
        raise ModelError(f"{path} does not exist", "check the path")


def require_calibration(arguments: Namespace) -> None:
    """Refuse to invent data.

    Raises:
        CalibrationError: --calibration is missing; tells the ways.
    """
    if arguments.calibration is None:
        raise CalibrationError(
            "int8 needs calibration data, and none is given",
            "add --calibration FOLDER (pictures like those the model will see), --calibration DATA.npy or DATA.npz, or "
            "--calibration random for synthetic samples that say nothing about accuracy",
        )


def _input_shape(text: str) -> tuple[str, Shape]:
    name, _, dimensions = text.rpartition(":")
    parts = dimensions.replace(",", "x").split("x")
    if not name or not all(part.isdecimal() and 1 <= int(part) < 2**31 for part in parts):
        raise UsageError(f"{text!r} is not the shape of an input", "write --input NAME:1x3x224x224")
    return name, tuple(map(int, parts))


def _input_layout(text: str) -> tuple[str, Literal["NCHW", "NHWC"]]:
    name, _, layout = text.rpartition(":")
    if layout == "NHWC":
        return name, "NHWC"
    if layout == "NCHW":
        return name, "NCHW"
    raise UsageError(f"{text!r} is not a layout", "write --input-layout NHWC, or NAME:NHWC for one input")


def _threads(text: str) -> int:
    number = positive(text)
    if number > _MOST_THREADS:
        raise UsageError(f"{number} threads are too many", f"use at most {_MOST_THREADS}")
    return number


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise UsageError(f"{text!r} is not a seed", "write an integer from 0 to 4294967295")
    return int(text)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(map(math.isfinite, values)):
        raise UsageError(f"{text!r} is not a number or a list of numbers", "write 127.5 or 123.7,116.3,103.5")
    return values


def _divisors(text: str) -> tuple[float, ...]:
    values = _numbers(text)
    if min(values) <= 0:
        raise UsageError(f"--std {text} is not positive", "write 127.5 or 58.4,57.1,57.4")
    return values


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise UsageError(f"{text!r} is not between 0 and 1", "write a fraction such as 0.3")
    return value
