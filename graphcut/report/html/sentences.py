"""What a report says in words: its title, its badges and the sentence that opens each section."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from graphcut.report.html.error_figures import decibels, places
from graphcut.report.html.report_facts import Facts, ProofFacts, SampleSet
from graphcut.report.html.svg import shown
from graphcut.report.html.tradeoff import SWEPT
from graphcut.report.simulation_tables import ESTIMATED
from graphcut.units import format_bytes

State = Literal["good", "bad", "warn", "plain"]

_VERDICTS: dict[str, State] = {"PASSED": "good", "WEAK": "warn"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Badge:
    """A short statement; ``state`` gives it a colour and a sign, ``meaning`` explains it."""

    words: str
    state: State
    meaning: str


def title(facts: Facts) -> str:
    """Say what was split into what."""
    what = "segment" if facts.k == 1 else "segments"
    size = format_bytes(facts.largest_bytes)
    if facts.planned_only:
        return f"{shown(facts.model)} in {facts.k} {what}, predicted at most {size}"
    return f"{shown(facts.model)} in {facts.k} int8 {what} of at most {size}"


def badges(facts: Facts) -> tuple[Badge, ...]:
    """Say the verdicts."""
    found = [*_proved(facts), *_fewest(facts)]
    proof = facts.proof
    if proof is not None and proof.agreement is not None:
        agree = round(proof.agreement * proof.samples)
        state: State = "good" if agree == proof.samples else "warn"
        found.append(
            Badge(
                words=f"top-1 agrees on {agree} of {proof.samples}",
                state=state,
                meaning="samples on which the int8 chain and the float model give the same top class",
            )
        )
    if facts.operators:
        chip = sum(each.on_chip for each in facts.operators)
        found.append(
            Badge(
                words=f"{chip} of {len(facts.operators)} operators on the chip",
                state="good" if chip == len(facts.operators) else "warn",
                meaning="by the limits of the Edge TPU compiler, from the files alone",
            )
        )
    if proof is not None and proof.synthetic:
        found.append(
            Badge(
                words="SYNTHETIC calibration",
                state="warn",
                meaning="the samples are noise: sizes and exactness are valid, accuracy on real data is unknown",
            )
        )
    return tuple(found)


def _proved(facts: Facts) -> list[Badge]:
    proof = facts.proof
    if proof is None:
        return [Badge(words="planned, not converted", state="plain", meaning="all sizes are predicted")]
    return [
        Badge(
            words=proof.verdict,
            state=_VERDICTS.get(proof.verdict, "bad"),
            meaning=f"{proof.reason or 'verification'}, on {_samples(proof)}",
        ),
        Badge(
            words="exact" if proof.exact else "NOT exact",
            state="good" if proof.exact else "bad",
            meaning="chain, unsplit model and every prefix with its tail give the same bytes on all samples",
        ),
    ]


def _fewest(facts: Facts) -> list[Badge]:
    if facts.minimal_k is None:
        return []
    if facts.k <= facts.minimal_k:
        words, state = "fewest segments possible", "good"
    else:
        words, state = f"{facts.minimal_k} segments are possible", "plain"
    meaning = f"with these places to cut, by an exact search; no plan at all has fewer than {facts.lower_bound}"
    return [Badge(words=words, state="good" if state == "good" else "plain", meaning=meaning)]


def strip_lead(facts: Facts) -> str:
    """Open the section with the strip."""
    cuts = _count(len(facts.cuts), "cut")
    return (
        f"{_count(len(facts.operators), 'operator')} in execution order, divided by {cuts}. Wide bars have many "
        "parameters; tall bars read and write large activations."
    )


def segments_lead(facts: Facts) -> str:
    """Open the section on sizes."""
    budget = facts.budget_bytes
    largest = max(facts.segments, key=lambda each: each.tflite_bytes)
    measured = "has" if largest.measured else "is expected to have"
    size = f"The largest file, of segment {largest.index}, {measured} {format_bytes(largest.tflite_bytes)}"
    if budget is not None:
        room = budget - largest.tflite_bytes
        size += f", {format_bytes(abs(room))} {'within' if room >= 0 else 'ABOVE'} the budget of {format_bytes(budget)}"
    streamed = sum(each.off_chip_bytes for each in facts.segments)
    if streamed:
        return f"{size}. {format_bytes(streamed)} are expected to stream at every inference, which costs time."
    return f"{size}. All parameters are expected to stay on the chip."


def streaming_rows(facts: Facts) -> list[tuple[int, str, int]]:
    """List the layers that are expected to stream: segment, layer, bytes; the largest first."""
    found = [(each.segment, each.layer, each.parameter_bytes) for each in facts.operators if each.streams]
    return sorted(found, key=lambda row: (-row[2], row[0]))


def tradeoff_lead(facts: Facts) -> str:
    """Open the section on the trade-off."""
    swept = [each for each in facts.options if each.name == SWEPT]
    fits = [each.k for each in swept if not each.off_chip_bytes]
    best = min(swept, key=lambda each: (each.interval_ms, each.k))
    streams = "parameters stream"
    if fits:
        streams = "nothing streams" if len(fits) == len(swept) else f"nothing streams from {min(fits)} segments on"
    return (
        f"With the best plan for each number of segments, {streams}. The shortest time per result is "
        f"{best.interval_ms:.2f} ms with {_count(best.k, 'segment')} ({ESTIMATED})."
    )


def pipeline_lead(facts: Facts) -> str:
    """Open the section on the pipeline."""
    timeline = facts.timeline
    if timeline is None:
        return "No timeline: there are no costs of these segments."
    rate = f"{1000 / timeline.interval_ms:,.0f}" if timeline.interval_ms else "?"
    if timeline.stamp == "MEASURED":
        return f"{rate} results/s, latency {timeline.latency_ms:.2f} ms, MEASURED {timeline.what}."
    left = sum(not each.on_chip for each in facts.operators)
    beside = f" The time of {_count(left, 'operator')} on the CPU is not in it." if left else ""
    return f"{rate} results/s, latency {timeline.latency_ms:.2f} ms, {ESTIMATED}: {timeline.what}.{beside}"


def error_lead(facts: Facts) -> str:
    """Open the section on the error."""
    if not facts.seams:
        return "Nothing is converted yet, so no error was measured."
    name, role, value = places(facts)[0]
    if not math.isfinite(value) and value > 0:
        return "No place differs from float."
    what = f"{role} {shown(name)}"
    return (
        f"The largest int8 error is at {what}: {decibels(value)}, signal to quantisation noise. 6 dB more halve the "
        "noise amplitude; below 3 dB an output is noise."
    )


def cpu_lead(facts: Facts) -> str:
    """Open the section on the CPU."""
    rest = [each for each in facts.operators if not each.on_chip]
    if not rest and facts.planned_only:
        return "Every operator is of a kind that the Edge TPU runs. Limits of sizes are checked after conversion."
    if not rest:
        return "Every operator is within the limits of the Edge TPU compiler."
    return (
        f"{_count(len(rest), 'operator')} of {len(facts.operators)} {'does' if len(rest) == 1 else 'do'} not run on "
        "the chip. Operators that depend on them run on the CPU too."
    )


def cpu_rows(facts: Facts) -> list[tuple[str, str, int, str]]:
    """List what stays on the CPU: operator, reason, how many, and the layers of the first ones."""
    found: dict[tuple[str, str], list[str]] = {}
    for each in facts.operators:
        if not each.on_chip:
            found.setdefault((each.op, each.reason), []).append(each.layer)
    rows = []
    for (op, reason), layers in found.items():
        more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
        rows.append((op, reason, len(layers), f"{', '.join(shown(each, 48) for each in layers[:3])}{more}"))
    return sorted(rows, key=lambda row: (-row[2], row[0], row[1]))


def calibration_line(proof: ProofFacts) -> str:
    """Say how far int8 is on the calibration samples, where it was judged on others; else nothing."""
    if not proof.calibration_db:
        return ""
    name, value = min(proof.calibration_db.items(), key=lambda each: each[1])
    samples = _count(proof.calibration_samples, "sample")
    return f"calibration: {samples}, worst place {shown(name)} with {decibels(value)}"


def set_line(one: SampleSet) -> str:
    """Describe a set of samples."""
    values = sorted(each.sqnr_db for each in one.samples)
    middle = values[len(values) // 2] if values else math.nan
    agreement = "" if one.agreement is None else f", top-1 agrees on {one.agreement:.0%}"
    noise = "SYNTHETIC, " if one.synthetic else ""
    return (
        f"{one.name}: {noise}{_count(len(values), 'sample')} from {shown(one.origin)}, worst "
        f"{decibels(values[0]) if values else 'none'}, median {decibels(middle)}{agreement}"
    )


def method(facts: Facts) -> str:
    """Describe the method in a paragraph for a paper."""
    seams = "at tensors through which every path from input to output passes"
    if any("+" in cut for cut in facts.cuts):
        seams = "at positions where a small set of tensors is alive"
    limit = "" if facts.budget_bytes is None else f" within a budget of {format_bytes(facts.budget_bytes)} per file"
    first = (
        f"{shown(facts.model)} was divided {seams} into {facts.k} segments{limit} with graphcut "
        f"{facts.versions.get('graphcut', 'unknown')} (objective: {facts.strategy}). File sizes were predicted from "
        "the layout of TFLite files before anything was converted."
    )
    if facts.proof is None:
        return f"{first} Times are estimates from published measurements."
    proof = facts.proof
    data = "synthetic noise" if proof.synthetic else "given by the user"
    judged = f"{proof.samples} {'held-out ' if proof.held_out else ''}samples"
    weights = "Every segment was converted to int8 with ranges of activations taken from"
    checked = (
        f"the chain of segments, the unsplit model and every combination of a prefix and a tail gave "
        f"{'identical bytes' if proof.exact else 'DIFFERENT bytes'} on all {judged} in one runtime "
        f"({proof.runtime})"
    )
    return (
        f"{first} {weights} {_count(proof.calibration_samples, 'sample')} ({data}) run through the float model; "
        "both sides of a seam share scale and zero point, so that a segment's output is the next one's input "
        "unchanged. "
        f"{checked[0].upper()}{checked[1:]}. The error is the signal-to-quantisation-noise ratio of the int8 chain "
        "against the float model. Times are estimates from published measurements."
    )


def compared_rows(splits: Mapping[str, Facts]) -> list[tuple[str, list[str]]]:
    """Compare several splits: a line for each property, a cell for each split."""
    every = list(splits.values())
    return [
        ("model", [shown(each.model) for each in every]),
        ("objective", [each.strategy for each in every]),
        ("segments", [str(each.k) for each in every]),
        ("largest file", [format_bytes(each.largest_bytes) for each in every]),
        ("budget", ["none" if each.budget_bytes is None else format_bytes(each.budget_bytes) for each in every]),
        ("verification", [each.proof.verdict if each.proof else "planned" for each in every]),
        ("exact", ["yes" if each.proof and each.proof.exact else "NO" for each in every]),
        ("top-1 agreement", [_agreement(each) for each in every]),
        ("weakest place", [decibels(places(each)[0][2]) if each.seams else "none" for each in every]),
        ("calibration", [_calibration(each) for each in every]),
        ("streams (predicted)", [format_bytes(sum(one.off_chip_bytes for one in each.segments)) for each in every]),
        ("results/s (ESTIMATED)", [_rate(each) for each in every]),
        ("latency (ESTIMATED)", [f"{sum(one.latency_ms for one in each.segments):.2f} ms" for each in every]),
        ("operators on the CPU", [str(sum(not one.on_chip for one in each.operators)) for each in every]),
    ]


def _agreement(facts: Facts) -> str:
    proof = facts.proof
    return "no class" if proof is None or proof.agreement is None else f"{proof.agreement:.1%} of {proof.samples}"


def _calibration(facts: Facts) -> str:
    proof = facts.proof
    if proof is None:
        return "none"
    return f"{'SYNTHETIC, ' if proof.synthetic else ''}{_count(proof.calibration_samples, 'sample')}"


def _rate(facts: Facts) -> str:
    slowest = max((each.latency_ms for each in facts.segments), default=0.0)
    return f"{1000 / slowest:,.0f}" if slowest else "unknown"


def _samples(proof: ProofFacts) -> str:
    kind = "held-out sample" if proof.held_out else "sample"
    return _count(proof.samples, kind)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
