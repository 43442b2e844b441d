"""All settings, each declared once: name, type, default, help, and its form on the command line.

1. A setting is a key of a ``TypedDict`` below, with its type; :class:`Setting` in the annotation has the rest. The
   Python API takes settings as keyword arguments of these names, the command line as flags.
2. :func:`graphcut.api.plan_options` converts settings to records.
3. Error texts name a setting by :func:`graphcut.errors.setting`; :func:`as_flag` spells it for the command line.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypedDict, get_args, get_type_hints

from graphcut.errors import UsageError
from graphcut.records import SegmentTimes

Strategy = Literal["greedy", "fewest", "balanced", "throughput", "latency", "traffic", "range", "given"]
Effort = Literal["fast", "normal", "high"]
"""Time given to accuracy beyond the conversion: none, about as much again, several times as much."""

Until = Literal["chip"]
"""Where the part of a model that is split for the Edge TPU ends."""

EdgeType = Literal["int8", "uint8"]
"""Type of a model's inputs or outputs in the files of a split."""

Method = Literal["equalise", "ranges", "weights", "biases"]
"""What is done for the accuracy of int8 beyond the conversion; docs/explanation/accuracy.md explains each."""

DEFAULT_BUDGET = "7MiB"
"""The part of the 8 MB of an Edge TPU that is left for parameters next to the activations of a ResNet."""


def positive(text: str) -> int:
    """Read an integer of at least 1."""
    if not text.isdecimal() or not 1 <= int(text) < 2**31:
        raise UsageError(f"{text!r} is not a positive integer", "use 1 or more")
    return int(text)


def names(text: str) -> tuple[str, ...]:
    r"""Read names separated by commas; ``\,`` is a comma inside a name."""
    parts = text.replace("\\,", "\0").split(",")
    return tuple(name for name in (part.strip().replace("\0", ",") for part in parts) if name)


def limit(text: str) -> tuple[str, str]:
    """Read NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or not value.strip():
        raise UsageError(f"{text!r} is not a limit", "write NAME=VALUE, such as --limit compiled=7MiB")
    return name.strip(), value.strip()


def decibels(text: str) -> float:
    """Read a number of decibels, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1000:
        raise UsageError(f"{text!r} is not a number of decibels", "use a number from 0 to 999, such as 15")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The help text of a setting, and its form on the command line.

    Attributes:
        help: one sentence; it ends with the default in parentheses, if there is one.
        default: where nothing is given.
        metavar: of the value on the command line; "" for a switch.
        flag: on the command line; "" for the name with hyphens.
        alias: another flag for it.
        parse: reads the value on the command line.
        repeat: the flag may be repeated, and the values are put together.
        choices: the values that there are.
    """

    help: str
    default: Any = None
    metavar: str = ""
    flag: str = ""
    alias: str = ""
    parse: Callable[[str], Any] = str
    repeat: bool = False
    choices: tuple[Any, ...] = ()


class RangeSettings(TypedDict, total=False):
    """Which range of the model is split."""

    inputs: Annotated[
        Sequence[str],
        Setting(
            help=r"begin at these layers or tensors, as `inspect` shows them; a comma in a name is \,",
            default=(),
            metavar="A,B",
            parse=names,
        ),
    ]
    outputs: Annotated[
        Sequence[str],
        Setting(
            help="end at these layers or tensors: what comes after them is left off, whatever it is",
            default=(),
            metavar="C,D",
            parse=names,
        ),
    ]


class PlanSettings(TypedDict, total=False):
    """Where to cut."""

    budget: Annotated[
        str | int | None,
        Setting(help="largest int8 file of a segment: 7MiB, 512KiB, 7000000 (default: 7MiB)", metavar="SIZE"),
    ]
    budget_on: Annotated[
        Sequence[str],
        Setting(
            help="what the budget limits: tflite, compiled, parameters (default: tflite)",
            default=("tflite",),
            metavar="A,B",
            parse=names,
        ),
    ]
    limits: Annotated[
        Mapping[str, str | float] | None,
        Setting(
            help="a limit for every segment: tflite, compiled, parameters, off-chip, activations, seam (sizes), "
            "macs, latency (ms); may be repeated",
            metavar="NAME=VALUE",
            flag="--limit",
            parse=limit,
            repeat=True,
        ),
    ]
    segments: Annotated[
        int | None,
        Setting(help="split into K segments, the largest as small as possible", metavar="K", parse=positive),
    ]
    max_segments: Annotated[int | None, Setting(help="at most N segments", metavar="N", parse=positive)]
    size_range: Annotated[
        str | tuple[int, int] | None,
        Setting(help="keep every segment within a range, such as 2MiB..6MiB", metavar="LOW..HIGH", flag="--range"),
    ]
    cuts: Annotated[
        Sequence[str] | None,
        Setting(
            help=r"cut at these layers; a seam of several tensors is A+B, a comma in a name is \,",
            metavar="A,B",
            parse=names,
        ),
    ]
    strategy: Annotated[
        Strategy | None,
        Setting(
            help=f"what to optimise: {', '.join(get_args(Strategy))} (default: chosen by the settings above; greedy "
            "with a budget)",
            metavar="NAME",
            flag="--objective",
            alias="--strategy",
            choices=get_args(Strategy),
        ),
    ]
    pins: Annotated[
        Sequence[str], Setting(help="cut here; may be repeated", metavar="CUT", flag="--pin", parse=names, repeat=True)
    ]
    avoid: Annotated[
        Sequence[str], Setting(help="do not cut here; may be repeated", metavar="CUT", parse=names, repeat=True)
    ]
    device: Annotated[
        str | None,
        Setting(
            help="device of the segments: coral-usb, coral-usb-x86, coral-pcie, coral-dev-board, or a profile; without "
            "a budget nothing may stream on it",
            metavar="NAME|FILE.toml",
        ),
    ]
    devices: Annotated[
        int | str | Sequence[str],
        Setting(
            help="number of devices of the kind --device, or of several kinds (2xcoral-usb,1xcpu), for which segments, "
            "copies and placement are chosen together; or a chain of devices for the segments in order (A,B:SIZE), "
            "each optionally with its own budget",
            default=(),
            metavar="N|NxA|A,B:SIZE",
            parse=names,
        ),
    ]
    micro_batch: Annotated[
        int,
        Setting(
            help="most inputs that one of several devices takes together where segments share it (default: 8)",
            default=8,
            metavar="N",
            parse=positive,
        ),
    ]
    times: Annotated[
        str | os.PathLike[str] | SegmentTimes | None,
        Setting(
            help="measured times of segments from bench --save-times, used instead of estimates",
            metavar="FILE",
        ),
    ]
    until: Annotated[
        Until | None,
        Setting(
            help="chip: end the segments for the Edge TPU where it cannot go on (a decoder, a softmax over boxes); one "
            "more segment does the rest on the CPU",
            metavar="chip",
            choices=get_args(Until),
        ),
    ]
    allow_pre_activation: Annotated[
        bool,
        Setting(help="also cut between an operator and its activation", default=False, flag="--pre-activation"),
    ]
    max_seam_tensors: Annotated[
        int | None,
        Setting(
            help="cut where up to N tensors cross (default: 1 if that gives a plan, else the smallest N that does)",
            metavar="N",
            parse=positive,
        ),
    ]
    min_rank: Annotated[
        int | None,
        Setting(
            help="cut at tensors of this rank and above: 4 is feature maps only, 2 adds the vectors around the dense "
            "layers (default: 4 if that gives a plan, else 2)",
            metavar="N",
            parse=positive,
            choices=(1, 2, 3, 4),
        ),
    ]
    layer_split: Annotated[
        bool,
        Setting(
            help="keep layers whole that exceed the budget by themselves (default: split them by output channels)",
            default=True,
            flag="--no-layer-split",
        ),
    ]
    per_channel: Annotated[
        bool,
        Setting(
            help="one weight scale per tensor instead of one per channel (much lower accuracy)",
            default=True,
            flag="--per-tensor",
        ),
    ]


class SplitSettings(PlanSettings, total=False):
    """How to convert, and what to do with the result."""

    jobs: Annotated[int, Setting(help="worker processes (default: 2)", default=2, metavar="N", parse=positive)]
    force: Annotated[bool, Setting(help="replace an earlier result", default=False)]
    min_sqnr: Annotated[
        float,
        Setting(
            help="signal-to-noise ratio in dB below which an output fails; 0 for no limit (default: 10)",
            default=10.0,
            metavar="DB",
            parse=decibels,
        ),
    ]
    requantise: Annotated[
        bool,
        Setting(
            help="for a model from quantisation-aware training: take ranges from the samples, not from the file",
            default=False,
        ),
    ]
    input_type: Annotated[
        EdgeType,
        Setting(
            help="type of the model's inputs: uint8 is what cameras and pycoral programs feed (default: int8)",
            default="int8",
            choices=get_args(EdgeType),
        ),
    ]
    output_type: Annotated[
        EdgeType,
        Setting(
            help="type of the model's outputs; seams are int8 always (default: int8)",
            default="int8",
            choices=get_args(EdgeType),
        ),
    ]
    independent: Annotated[
        bool,
        Setting(
            help="also convert the whole model in one piece, and compare the chain with it",
            default=False,
        ),
    ]
    effort: Annotated[
        Effort,
        Setting(
            help="time for improving int8 accuracy, relative to the conversion: none, about the same, or several "
            "times as much (default: normal)",
            default="normal",
            choices=get_args(Effort),
        ),
    ]
    reuse: Annotated[
        bool,
        Setting(
            help="compute everything again instead of reusing the results of earlier runs",
            default=True,
            flag="--no-cache",
        ),
    ]
    without: Annotated[
        Sequence[Method],
        Setting(
            help="methods of accuracy to leave out: equalise, ranges, weights, biases; may be repeated",
            default=(),
            metavar="METHOD",
            parse=names,
            repeat=True,
        ),
    ]


_FLAGS_OF_OTHERS = {
    "out": "-o",
    "input_shapes": "--input",
    "input_layouts": "--input-layout",
    "compile_seconds": "--compile-timeout",
}
"""Flags that differ from the setting's name with hyphens, for settings in none of the tables above."""


@cache
def table(settings: type) -> dict[str, Setting]:
    """Return the settings of one of the classes above, by name, in order."""
    hints = get_type_hints(settings, include_extras=True)
    return {name: next(each for each in get_args(hint) if isinstance(each, Setting)) for name, hint in hints.items()}


def flag_of(name: str) -> str:
    """Return the flag of a setting on the command line."""
    known = table(SplitSettings).get(name)
    written = known.flag if known is not None else _FLAGS_OF_OTHERS.get(name, "")
    return written or f"--{name.replace('_', '-')}"


def as_flag(name: str, value: str | None) -> str:
    """Format a setting as in a shell: ``--max-seam-tensors 2``; see :func:`graphcut.errors.spelt`."""
    flag = flag_of(name)
    return flag if value in (None, "True", "False") else f"{flag} {value}"


def takes[F: Callable[..., Any]](settings: type) -> Callable[[F], F]:
    """Give a function that takes ``**settings`` the signature with all of them, for ``help`` and editors."""

    def signed(function: F) -> F:
        own = inspect.signature(function)
        fixed = [each for each in own.parameters.values() if each.kind is not each.VAR_KEYWORD]
        hints = get_type_hints(settings)
        further = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=hints[name])
            for name, each in table(settings).items()
        ]
        function.__signature__ = own.replace(parameters=[*fixed, *further])  # type: ignore[attr-defined]
        return function

    return signed
