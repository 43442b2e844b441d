"""The facts of a plan, before anything is converted: everything in them is predicted.

Operators are predicted as the converter will write them. Whether the chip takes one is judged by its kind alone: limits
of sizes and versions need the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphcut.edgetpu.caching import cache
from graphcut.edgetpu.layers_of_graph import Assumed, layers_of
from graphcut.edgetpu.limits import NEWEST_VERSION
from graphcut.edgetpu.packing import Packed, pack_layer
from graphcut.prediction.device_profiles import DeviceProfile
from graphcut.prediction.latency import PartCost
from graphcut.prediction.segment_costs import Costs, SegmentCost
from graphcut.records import Graph, Plan, Segment, Source
from graphcut.report.html import timeline
from graphcut.report.html.collect import options_of
from graphcut.report.html.command import plan_words, written
from graphcut.report.html.report_facts import Facts, OperatorFacts, SegmentFacts
from graphcut.versions import graphcut_version, tool_versions

NOT_ON_CHIP = "not among the operators the Edge TPU runs (judged by its kind, before conversion)"


def facts_of_plan(
    source: Source,
    plan: Plan,
    costs: Costs,
    devices: tuple[DeviceProfile, ...],
    trade_off: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Facts:
    """Gather the facts of a plan.

    Args:
        source: the model.
        plan: of the graph of ``costs``.
        costs: of its segments.
        devices: of its segments in order; the last one serves the rest.
        trade_off: JSON values of a :class:`graphcut.planning.compare.TradeOff`.
        options: how the plan was asked for, JSON values.
    """
    costed = costs.plan(plan, devices).segments
    device, per_channel = devices[0], costs.sizes.per_channel
    segments = tuple(_segment(each, cost, device) for each, cost in zip(plan.segments, costed, strict=True))
    return Facts(
        model=source.name,
        planned_only=True,
        budget_bytes=plan.budget_bytes,
        minimal_k=plan.minimal_k,
        lower_bound=plan.lower_bound,
        strategy=plan.strategy,
        cuts=plan.cuts,
        segments=segments,
        combinations=(),
        operators=_operators(costs.graph, plan, device, per_channel=per_channel),
        options=options_of(trade_off),
        seams=(),
        by_operator=False,
        sample_sets=(),
        timeline=timeline.estimated(
            [_part(each, cost, device) for each, cost in zip(plan.segments, costed, strict=True)],
            timeline.link_of(device),
        ),
        proof=None,
        evaluation=None,
        device=device.name,
        command=written(
            ["graphcut", "plan", source.name if source.kind == "recipe" else "MODEL", *plan_words(options)]
        ),
        preprocessing="Nothing is fed before conversion.",
        versions={"graphcut": graphcut_version(), **tool_versions()},
        hashes={f"source: {source.name}": source.sha256},
        notes=plan.notes,
    )


def _segment(segment: Segment, cost: SegmentCost, device: DeviceProfile) -> SegmentFacts:
    return SegmentFacts(
        index=segment.index,
        inputs=segment.input_layers,
        outputs=segment.output_layers,
        tflite_bytes=segment.tflite_bytes,
        measured=False,
        compiled_bytes=cost.compiled.expected_bytes,
        compiled_low=cost.compiled.low_bytes,
        compiled_high=cost.compiled.high_bytes,
        compiled_measured=False,
        parameter_bytes=cost.parameter_bytes,
        room_bytes=cost.fit.room_bytes if device.room_bytes is None else device.room_bytes,
        off_chip_bytes=cost.off_chip_bytes,
        macs=cost.macs,
        work=cost.work,
        latency_ms=cost.latency_ms,
    )


def _operators(graph: Graph, plan: Plan, device: DeviceProfile, *, per_channel: bool) -> tuple[OperatorFacts, ...]:
    packed = [
        [pack_layer(layer) for layer in node]
        for node in layers_of(graph, Assumed(per_channel=per_channel, per_channel_dense=False))
    ]
    return tuple(
        operator
        for segment in plan.segments
        for operator in _segment_operators(
            segment, [each for node in packed[segment.start : segment.stop] for each in node], graph, device
        )
    )


def _segment_operators(
    segment: Segment, packed: Sequence[Packed], graph: Graph, device: DeviceProfile
) -> list[OperatorFacts]:
    on_chip = [number for number, each in enumerate(packed) if each.layer.op in NEWEST_VERSION]
    input_bytes = sum(graph.tensors[name].elements for name in segment.inputs)
    caching = cache([packed[number] for number in on_chip], input_bytes=input_bytes, room_bytes=device.room_bytes)
    streamed = {on_chip[index] for index in caching.streamed}
    runs_there = frozenset(on_chip)
    return [
        OperatorFacts(
            segment=segment.index,
            layer=each.layer.name,
            op=each.layer.op,
            parameter_bytes=each.parameter_bytes,
            activation_bytes=each.layer.activation_bytes,
            macs=each.layer.macs,
            on_chip=number in runs_there,
            reason="" if number in runs_there else NOT_ON_CHIP,
            streams=number in streamed,
            time_ms=timeline.operator_ms(device, each, streams=number in streamed) if number in runs_there else None,
        )
        for number, each in enumerate(packed)
    ]


def _part(segment: Segment, cost: SegmentCost, device: DeviceProfile) -> PartCost:
    return PartCost(
        label=f"segment {segment.index}",
        compute_ms=timeline.compute_ms(device, cost.work),
        on_chip_bytes=cost.parameter_bytes - cost.off_chip_bytes,
        off_chip_bytes=cost.off_chip_bytes,
        host_in_bytes=cost.host_in_bytes,
        host_out_bytes=cost.host_out_bytes,
        seam_in_bytes=cost.seam_in_bytes,
        seam_out_bytes=cost.seam_out_bytes,
    )
