"""The facts of a plan, before anything is converted: everything in them is foreseen.

Operators are foreseen as the converter will write them. Whether the chip takes one is judged by its kind alone: limits
of sizes and versions need the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphcut.edgetpu.computing import work
from graphcut.edgetpu.layers_of_graph import Assumed, layers_of
from graphcut.edgetpu.limits import NEWEST_VERSION
from graphcut.edgetpu.packing import pack_layer
from graphcut.prediction.device_profiles import DeviceProfile
from graphcut.prediction.latency import PartCost
from graphcut.prediction.segment_costs import Costs, SegmentCost
from graphcut.records import Graph, Plan, Segment, Source
from graphcut.report.html import timeline
from graphcut.report.html.collect import options_of
from graphcut.report.html.command import plan_words, written
from graphcut.report.html.report_facts import Facts, OperatorFacts, SegmentFacts
from graphcut.result.versions import graphcut_version, tool_versions

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
        trade_off: as :func:`graphcut.result.encode.trade_off` writes it.
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
    layers = layers_of(graph, Assumed(per_channel=per_channel, per_channel_dense=False))
    return tuple(
        OperatorFacts(
            segment=segment.index,
            layer=layer.name,
            op=layer.op,
            parameter_bytes=pack_layer(layer).parameter_bytes,
            activation_bytes=layer.activation_bytes,
            macs=layer.macs,
            on_chip=layer.op in NEWEST_VERSION,
            reason="" if layer.op in NEWEST_VERSION else NOT_ON_CHIP,
            time_ms=timeline.compute_ms(device, work(layer)) if layer.op in NEWEST_VERSION else None,
        )
        for segment in plan.segments
        for node in layers[segment.start : segment.stop]
        for layer in node
    )


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
