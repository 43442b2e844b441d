"""The requests that plans and splits have to satisfy."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Integral
from typing import Annotated, get_args

from graphcut.cache_folder import EarlierResults
from graphcut.edgetpu.compiler import DEFAULT_SECONDS, Compiler
from graphcut.errors import UsageError, setting
from graphcut.planning.segment_limits import NAMES, Limits
from graphcut.prediction.device_profiles import DEFAULT, DeviceProfile
from graphcut.record_types import FLAT
from graphcut.records import Plan, Preprocessing, Samples, SegmentTimes
from graphcut.settings import EdgeType, Effort, Method, Strategy, Until

_WITHIN = {"budget_bytes", "limits", "devices"}
_FLEET = {"budget_bytes", "limits", "fleet", "pins", "avoid"}
_CONSTRAINTS = {*_WITHIN, "pins", "avoid", "max_segments"}
_TAKES: dict[str, set[str]] = {
    "greedy": _CONSTRAINTS,
    "fewest": _CONSTRAINTS,
    "balanced": {*_CONSTRAINTS, "segments"},
    "throughput": {*_CONSTRAINTS, "segments", "fleet"},
    "latency": {*_CONSTRAINTS, "segments", "fleet"},
    "traffic": {*_CONSTRAINTS, "segments"},
    "range": {"range_bytes", "segments", "avoid"},
    "given": {"budget_bytes", "cuts"},
}
_NEEDS_ONE_OF: dict[str, set[str]] = {
    "greedy": _WITHIN,
    "fewest": _WITHIN,
    "balanced": {*_WITHIN, "segments"},
    "throughput": {"segments", "max_segments", "devices", "fleet"},
    "traffic": {*_WITHIN, "segments"},
    "range": {"range_bytes"},
    "given": {"cuts"},
}
_SETTINGS = {
    "budget_bytes": "budget",
    "segments": "segments",
    "max_segments": "max_segments",
    "range_bytes": "size_range",
    "cuts": "cuts",
    "limits": "limits",
    "devices": "devices",
    "fleet": "devices",
    "pins": "pins",
    "avoid": "avoid",
}
"""Field -> the setting that it comes from (graphcut.settings)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """The request for a plan; the strategies that accept a field are in parentheses.

    Attributes:
        strategy: the objective: "greedy" (the reference rule), "fewest", "balanced", "throughput", "latency",
            "traffic" (graphcut.planning.objectives), "range" (the later variant of the rule) or "given".
        budget_bytes: the most bytes of an int8 file (all but range). Greedy and fewest need this, a limit or devices
            with budgets; balanced and traffic need one of these or ``segments``.
        segments: exactly K (balanced, throughput, latency, traffic, range).
        max_segments: at most this many (all but range and given).
        range_bytes: LOW and HIGH (range, which needs it).
        cuts: layer or tensor names in any order (given, which needs it); empty for one segment.
        limits: of every segment, by other costs (all but range and given).
        devices: a chain of devices: segment k runs on the k-th, within its own budget; at most this many segments.
        fleet: the available devices, in any order, for which segments, copies and placement are chosen together
            (throughput, latency); see graphcut.planning.fleet.
        micro_batch: the most inputs that a device of the fleet with several segments takes together.
        times: measured times of segments, for a fleet; None without.
        device: the device of all segments where no chain is given.
        pins: required cuts (all but range and given).
        avoid: excluded cuts (all but given).
        until: "chip" to plan as far as the Edge TPU goes, with one more segment for the rest, which the CPU runs;
            limits and numbers of segments do not count that one (not given).
        allow_pre_activation: also cut between an operator and the activation that would be fused into it.
        max_seam_tensors: the most tensors that a cut may hand over; None for the fewest with which there is a plan.
        layer_split: divide layers that exceed the budget by themselves (graphcut.planning.layer_split).

    Raises:
        UsageError: a field is missing, contradicts the strategy or is not positive.
    """

    strategy: Strategy = "greedy"
    budget_bytes: int | None = None
    segments: int | None = None
    max_segments: int | None = None
    range_bytes: tuple[int, int] | None = None
    cuts: tuple[str, ...] | None = None
    limits: Limits = field(default_factory=Limits)
    devices: tuple[DeviceProfile, ...] = ()
    fleet: tuple[DeviceProfile, ...] = ()
    micro_batch: int = 8
    times: SegmentTimes | None = None
    device: DeviceProfile = DEFAULT
    pins: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    until: Until | None = None
    allow_pre_activation: bool = False
    max_seam_tensors: int | None = None
    layer_split: bool = True

    def __post_init__(self) -> None:
        if self.strategy not in _TAKES:
            raise UsageError(f"there is no strategy {self.strategy!r}", f"choose from {', '.join(_TAKES)}")
        nothing = (None, (), Limits())
        given = {
            name for name in _SETTINGS if getattr(self, name) not in nothing or (name == "cuts" and self.cuts == ())
        }
        for name in sorted(given - _TAKES[self.strategy]):
            takes = " and ".join(setting(_SETTINGS[each]) for each in _SETTINGS if each in _TAKES[self.strategy])
            raise UsageError(
                f"the {self.strategy} strategy does not accept {setting(_SETTINGS[name])}", f"it accepts {takes}"
            )
        if self.until not in (None, *get_args(Until)):
            raise UsageError(f"{setting('until', self.until)} is unknown", f"use {' or '.join(get_args(Until))}")
        if self.fleet:
            for name in sorted(given - _FLEET):
                raise UsageError(
                    f"a number of {setting('devices')} does not go with {setting(_SETTINGS[name])}",
                    "leave one of the two out",
                )
        if self.device.budget_bytes is not None:
            given.add("devices")
        needed = _NEEDS_ONE_OF.get(self.strategy, given)
        if needed and not needed & given:
            ways = " or ".join(setting(_SETTINGS[each]) for each in _SETTINGS if each in needed)
            what = "to know how many segments" if "segments" in needed else ways
            raise UsageError(f"the {self.strategy} strategy needs {what}", f"add {ways}")
        low, high = self.range_bytes or (1, 2)
        for name, value in (
            ("budget", self.budget_bytes),
            ("segments", self.segments),
            ("max_segments", self.max_segments),
            ("size_range", low),
            ("size_range", high),
            ("max_seam_tensors", self.max_seam_tensors),
            ("micro_batch", self.micro_batch),
        ):
            if value is not None and (not isinstance(value, Integral) or isinstance(value, bool)):
                raise UsageError(f"{setting(name)} of {value!r} is not an integer", "use 1 or more")
            if value is not None and not value >= 1:
                raise UsageError(f"{setting(name)} of {value} is not positive", "use 1 or more")
        for name, limit in self.limits.given().items():
            if not limit >= (0 if name in ("off_chip_bytes", "seam_bytes") else 1):
                called = next(said for said, field in NAMES.items() if field == name)
                raise UsageError(f"the limit on {called} of {limit} is not positive", "use a larger one")
        if low >= high:
            raise UsageError(f"the range {low} .. {high} is empty", "write LOW..HIGH, such as 2MiB..6MiB")
        if self.segments is not None and self.max_segments is not None and self.segments > self.max_segments:
            raise UsageError(
                f"{setting('segments', self.segments)} is above {setting('max_segments', self.max_segments)}",
                "use one of the two",
            )
        both = sorted(set(self.pins) & set(self.avoid))
        if both:
            raise UsageError(f"{both[0]} is in both {setting('pins')} and {setting('avoid')}", "omit one of the two")

    @property
    def limit_bytes(self) -> int | None:
        """The limit of every int8 file: HIGH, or the largest budget of any device; None if one has no limit.

        A device's own budget stands in the place of the plan's, be it larger or smaller.
        """
        if self.range_bytes:
            return self.range_bytes[1]
        given = [each for each in (self.budget_bytes, self.limits.tflite_bytes) if each is not None]
        general = min(given, default=None)
        budgets = [device.budget_bytes for device in self.devices or self.fleet or (self.device,)]
        allowed = [general if budget is None else budget for budget in budgets]
        known = [budget for budget in allowed if budget is not None]
        return max(known) if len(known) == len(allowed) else None

    @property
    def constrained(self) -> bool:
        """Whether planning needs costs other than sizes, or constraints other than a budget."""
        plain = self.strategy in ("greedy", "balanced", "range", "given")
        devices = bool(self.devices or self.fleet or self.device.budget_bytes)
        return not plain or devices or bool(self.pins or self.max_segments or self.limits.given())


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """How a plan was asked for: its options, and what they apply to.

    Attributes:
        plan: how to cut.
        min_rank: lowest rank of a tensor to cut at; None for 4 where that suffices, else 2.
        per_channel: one weight scale for each output channel (else one for each tensor).
        inputs, outputs: the layers or tensors where the user let the model begin and end; None for its own.
        target: whose rewrites the model was loaded with.
    """

    plan: Annotated[PlanOptions, FLAT]
    min_rank: int | None = None
    per_channel: bool = True
    inputs: tuple[str, ...] | None = None
    outputs: tuple[str, ...] | None = None
    target: str = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitOptions:
    """The request for a split.

    Attributes:
        plan: how to cut.
        given: a plan to apply instead of making one.
        min_rank: lowest rank of a tensor to cut at; None for 4 where that suffices, else 2.
        per_channel: one weight scale per output channel (else one per tensor).
        jobs: worker processes.
        force: replace an earlier result.
        requantise: take ranges from the samples where the author's file contains some (QDQ).
        independent: also convert the whole model in one piece, and compare the chain with it.
        compiler: the Edge TPU compiler; with one, plans are made again until nothing streams; None: not compiled.
        compile_seconds: time limit of compiling one file.
        with_report: also write the report as HTML.
        validation: samples for the verdict; None to exclude every fifth of 20 or more from calibration.
        min_sqnr_db: dB below which an output fails; 0 for no limit.
        effort: time given to accuracy: "fast" for none beyond the conversion, "normal" for as much again as the
            conversion takes, "high" for more.
        results: what earlier runs made and this one may take; None to make everything anew.
        input_type, output_type: type of the model's inputs and outputs in the files.
        without: methods of accuracy to leave out.
        job: text of the job file that repeats the split, for the result; "" for none.
        preprocessing: from pixels to the model's input, for the manifest; None where it is unknown.
        seed: of synthetic samples, for the manifest.
    """

    plan: PlanOptions
    given: Plan | None = None
    min_rank: int | None = None
    per_channel: bool = True
    jobs: int = 2
    force: bool = False
    independent: bool = False
    requantise: bool = False
    compiler: Compiler | None = None
    compile_seconds: int = DEFAULT_SECONDS
    with_report: bool = True
    validation: Samples | None = None
    min_sqnr_db: float = 10.0
    effort: Effort = "normal"
    results: EarlierResults | None = None
    input_type: EdgeType = "int8"
    output_type: EdgeType = "int8"
    without: tuple[Method, ...] = ()
    job: str = ""
    preprocessing: Preprocessing | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise UsageError(f"{setting('jobs', self.jobs)} is less than 1", "use 1 or more")
        for name in ("input_type", "output_type"):
            if getattr(self, name) not in get_args(EdgeType):
                raise UsageError(
                    f"{setting(name, getattr(self, name))} is unknown", f"give {' or '.join(get_args(EdgeType))}"
                )
        if self.effort not in get_args(Effort):
            raise UsageError(f"{setting('effort', self.effort)} is unknown", f"use {', '.join(get_args(Effort))}")
        for method in self.without:
            if method not in get_args(Method):
                raise UsageError(f"{setting('without', method)} is unknown", f"give {', '.join(get_args(Method))}")
