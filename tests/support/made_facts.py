"""Facts of a report made by hand, as large and as hostile as a test wants them."""

from __future__ import annotations

from graphcut.report.html.report_facts import (
    Answer,
    Combination,
    Facts,
    OperatorFacts,
    Option,
    ProofFacts,
    SampleError,
    SampleSet,
    SeamError,
    SegmentFacts,
    Span,
    Timeline,
)
from graphcut.report.html.tradeoff import SWEPT
from graphcut.units import MIB

HOSTILE = (
    "</title></svg></script><script>window.owned=1</script><img src=x onerror=window.owned=1>\"'&\u202e\u0000{{7*7}}"
)
"""A name that tries everything: markup, script, quotes, template, direction of writing, a NUL."""


def facts(k: int = 7, operators: int = 20, *, name: str = "block{}_out", by_operator: bool = True) -> Facts:
    """Make the facts of a split into ``k`` segments of so many operators each."""
    cuts = tuple(name.format(index) for index in range(1, k))
    ends = ("input", *cuts, "output")
    segments = tuple(
        SegmentFacts(
            index=index,
            inputs=(ends[index - 1],),
            outputs=(ends[index],),
            tflite_bytes=6 * MIB + 10_000 * index,
            measured=True,
            compiled_bytes=6 * MIB,
            compiled_low=5 * MIB,
            compiled_high=7 * MIB,
            compiled_measured=False,
            parameter_bytes=6 * MIB + (2 * MIB if index == k else 0),
            room_bytes=7 * MIB,
            off_chip_bytes=MIB if index == k else 0,
            macs=10**9,
            work=10**9,
            latency_ms=3.0,
            sha256="0" * 64,
        )
        for index in range(1, k + 1)
    )
    made = tuple(
        OperatorFacts(
            segment=index,
            layer=f"{name.format(index)}/{number}",
            op="CONV_2D" if number % 2 == 0 else "ADD",
            parameter_bytes=0 if number % 2 else 1000 * (number + 1) ** 2,
            activation_bytes=1000 * (operators - number) ** 2,
            macs=10**6 * number,
            on_chip=number != 3,
            reason="" if number != 3 else "its output is float32, not int8",
            sqnr_db=10.0 + 1.7 * number if by_operator else 30.0,
            streams=index == k and number == operators - 2,
            time_ms=0.01 * number,
        )
        for index in range(1, k + 1)
        for number in range(operators)
    )
    swept = tuple(option(SWEPT, each, off_chip_bytes=0 if each >= k else MIB) for each in range(1, 2 * k + 1))
    others = tuple(option(each, k) for each in ("greedy", "fewest", "throughput", "edgetpu_compiler"))
    spans = tuple(
        Span(row=row, item=item, kind=kind, start_ms=3.0 * (row + item) + start, stop_ms=3.0 * (row + item) + stop)
        for row in range(k)
        for item in range(10)
        for kind, start, stop in (
            ("waiting", 0.0, 0.2),
            ("transfer", 0.2, 0.5),
            ("computing", 0.5, 2.2),
            ("streaming", 2.2, 2.8),
        )
    )
    sample_sets = tuple(
        SampleSet(
            name=which,
            origin=f"folder {which}",
            synthetic=False,
            samples=tuple(
                SampleError(
                    name=f"picture {number}.png",
                    sqnr_db=18.0 + number % 7,
                    float_answers=(Answer(label="cat", score=0.9), Answer(label="dog", score=0.1)),
                    int8_answers=(Answer(label="dog", score=0.6), Answer(label="cat", score=0.4)),
                )
                for number in range(12)
            ),
            agreement=0.5,
        )
        for which in ("calibration", "held-out")
    )
    return Facts(
        model=name.format("model"),
        planned_only=False,
        budget_bytes=7 * MIB,
        minimal_k=k,
        lower_bound=k,
        strategy="greedy",
        cuts=cuts,
        segments=segments,
        combinations=tuple(Combination(first=each, last=k, tflite_bytes=MIB * each) for each in range(2, k + 1)),
        operators=made,
        options=swept + others,
        seams=(
            *(
                SeamError(layer=each, role="seam", sqnr_db=20.0 + index, worst_sample="picture 1.png")
                for index, each in enumerate(cuts)
            ),
            SeamError(layer="logits", role="output", sqnr_db=float("inf"), worst_sample="picture 1.png"),
        ),
        by_operator=by_operator,
        sample_sets=sample_sets,
        timeline=Timeline(
            stamp="ESTIMATED",
            what=f"{k} Edge TPUs",
            rows=tuple(f"segment {index}" for index in range(1, k + 1)),
            spans=spans,
            interval_ms=3.0,
            latency_ms=3.0 * k,
        ),
        evaluation=None,
        proof=ProofFacts(
            verdict="PASSED",
            reason="exact, and at least 20.0 dB at the outputs",
            held_out=False,
            calibration_samples=12,
            calibration_db={},
            exact=True,
            float_exact=True,
            samples=12,
            synthetic=True,
            agreement=0.5,
            runtime="a runtime",
            findings=(f"a finding about {name.format(1)}",),
        ),
        device="coral-usb",
        command=f"graphcut split MODEL --cuts {','.join(cuts)}",
        preprocessing="(pixel - 127.5) / 127.5",
        versions={"graphcut": "0.1.0"},
        hashes={name.format("file"): "0" * 64},
        notes=(f"a note about {name.format(2)}",),
    )


def option(name: str, k: int, *, off_chip_bytes: int = 0) -> Option:
    """Make one way to cut."""
    return Option(
        name=name,
        k=k,
        largest_bytes=40 * MIB // k,
        interval_ms=20.0 / k + 1.0,
        latency_ms=20.0 + k,
        off_chip_bytes=off_chip_bytes,
    )
