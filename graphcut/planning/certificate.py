"""A plan's certificate: what a checker needs to verify the plan's claims without planning.

It is a JSON document (``Plan.certificate`` is its text); graphcut.verification.check_certificate checks it and imports
nothing from the planner. What it holds:

1. *places*: their positions in the graph, the bytes that the nodes before them add to a file, and what a file has
   beside (``base_bytes``); the cuts as places; the bytes of every segment, planned (they add up) and predicted.
2. *exchanges*: why there are no fewer segments within a limit. ``furthest[n]`` is the last place that n segments within
   the limit can reach, by the greedy walk: a part of a segment never needs more than the segment, so no plan's n-th cut
       lies after it. Each entry can be checked by itself; the last one lies before the end. For ``balanced`` the same
   with a limit one byte below the largest segment: K segments do not reach the end.
3. *phases*: why no plan is better by an objective found by dynamic programming. ``table[j]`` (by number of segments
   where that counts) is no more than ``table[i]`` and the cost of i .. j together, for every span that competes; so by
   induction no plan costs less than the last entry, which is what the plan costs. The costs of spans are computed
   again from the sums in ``costs`` by the formula of graphcut.prediction.segment_costs.
4. *fleet*: why no plan for a fleet of devices is better (graphcut.planning.fleet). ``table``, by used devices of each
   kind and place, is again no more than what any way to run one more span makes of it: the sum of what moves over the
   shared bus over stages whose interval is below the plan's (throughput), or of times (latency). The last entries are
   then not below the plan's interval, or latency, so no plan is below it.
5. **lower_bound*: the content of the whole model divided by what a file within the budget can contain.

A *seal* detects accidental changes: it is a hash of the rest. Tables of more than MOST_NUMBERS numbers are omitted, and
    ``left_out`` says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any, NamedTuple

from graphcut.analysis.digest import digest, seal
from graphcut.planning.fleet_choice import FleetChoice
from graphcut.planning.objectives import BEYOND, Phase, Problem
from graphcut.planning.places import Places
from graphcut.planning.span_costs import Spans
from graphcut.prediction.sizes import Sizes
from graphcut.records import Graph

FORMAT = 2
MOST_NUMBERS = 50_000


class Proof(NamedTuple):
    """How constrained cuts were found: the spans, the request, and the minimisations."""

    spans: Spans
    request: Problem
    phases: tuple[Phase, ...]


def certify(
    at: Places,
    graph: Graph,
    sizes: Sizes,
    cuts: Sequence[int],
    *,
    strategy: str,
    budget: int | None,
    lower_bound: int | None,
    minimal: int | None,
    proof: Proof | FleetChoice | None = None,
) -> str:
    """Write the certificate of a plan; linear in the graph, but for the tables of a proof.

    Args:
        at: the places.
        graph: in the order of the plan.
        sizes: that the plan was made with.
        cuts: the places to cut at.
        strategy: of the plan.
        budget: of the plan; None without one.
        lower_bound, minimal: as in the plan.
        proof: of a constrained plan, or of one for a fleet.
    """
    bounds = [0, *cuts, at.end]
    spans = list(pairwise(bounds))
    planned = [at.size(*span) for span in spans]
    document: dict[str, Any] = {
        "format": FORMAT,
        "objective": strategy,
        "graph": digest(graph),
        "sizes": "predicted" if sizes.files is not None else "given",
        "per_channel": sizes.per_channel,
        "base_bytes": at.base,
        "places": {"positions": list(at.positions), "content": list(at.content)},
        "cuts": list(cuts),
        "planned_bytes": planned,
        "tflite_bytes": [sizes.file_bytes(at.positions[start], at.positions[stop]) for start, stop in spans],
        "budget_bytes": budget,
        "minimal_k": minimal,
        "lower_bound": lower_bound,
        "exchanges": [],
        "phases": [],
        "left_out": "",
    }
    if isinstance(proof, FleetChoice):
        document |= _for_fleet(proof)
    elif proof is not None:
        document |= _proven(proof)
    elif budget is not None and minimal is not None:
        document["exchanges"].append(_exchange(at, budget, minimal - 1))
    if proof is None and strategy == "balanced":
        document["exchanges"].append(_exchange(at, max(planned) - 1, len(spans)))
    document["seal"] = seal(document)
    return json.dumps(document, separators=(",", ":"), allow_nan=False)


def _exchange(at: Places, limit: int, more_than: int) -> dict[str, Any]:
    """Prove that more than a number of segments are needed within a limit (statement 2)."""
    furthest = [0]
    for _ in range(more_than):
        furthest.append(at.reach(furthest[-1], limit))
    return {"limit_bytes": limit, "more_than": more_than, "furthest": furthest}


def _proven(proof: Proof) -> Mapping[str, Any]:
    """Show costs, constraints and tables (statement 3)."""
    spans, request = proof.spans, proof.request
    kinds = tuple(dict.fromkeys(request.devices or (request.default,)))
    asked = {
        "limits": request.limits.given(),
        "pins": sorted(request.pins),
        "devices": [asdict(device) for device in kinds],
        "chain": [kinds.index(device) for device in request.devices],
        "count": request.count,
        "most": request.most,
    }
    numbers = sum(phase.table.size for phase in proof.phases) + len(kinds) * (spans.at.end + 1)
    if numbers > MOST_NUMBERS:
        return {"asked": asked, "left_out": f"tables of {numbers} numbers, for more than {MOST_NUMBERS}"}
    return {
        "asked": asked,
        "first": spans.first_within(request.limits, kinds),
        "costs": spans.tables(),
        "phases": [
            {
                "keys": list(phase.keys),
                "scale": phase.scale,
                "largest": phase.largest,
                "caps": [list(cap) for cap in phase.caps],
                "layers": phase.layers,
                "count": phase.exactly,
                "table": [[None if value >= BEYOND else value for value in row] for row in _rows(phase)],
                "value": phase.value,
            }
            for phase in proof.phases
        ],
    }


def _for_fleet(choice: FleetChoice) -> Mapping[str, Any]:
    """Show the stages and the table (statement 4)."""
    fleet, spans = choice.times.fleet, choice.spans
    asked = {
        "limits": choice.limits.given(),
        "pins": sorted(choice.pins),
        "devices": [asdict(device) for device in fleet.kinds],
        "chain": [],
        "count": None,
        "most": None,
        "counts": list(fleet.counts),
        "batch": fleet.batch,
        "measured": sorted([*key, micros] for key, micros in choice.measured.micros.items()),
    }
    numbers = choice.proof.table.size + len(fleet.kinds) * (spans.at.end + 1)
    if numbers > MOST_NUMBERS:
        return {"asked": asked, "left_out": f"tables of {numbers} numbers, for more than {MOST_NUMBERS}"}
    return {
        "asked": asked,
        "first": spans.first_within(choice.limits, fleet.kinds),
        "costs": spans.tables(),
        "fleet": {
            "stages": [
                {**stage._asdict(), "cuts": list(cuts)}
                for stage, cuts in zip(choice.plan.stages, choice.plan.cuts, strict=True)
            ],
            "value": choice.proof.value,
            "below": choice.proof.below_us,
            "table": [
                [None if value >= BEYOND else value for value in row]
                for row in choice.proof.table.reshape(-1, spans.at.end + 1).tolist()
            ],
        },
    }


def _rows(phase: Phase) -> list[list[int]]:
    """A table as rows, one per number of segments where that counts."""
    values = phase.table.tolist()
    return values if phase.layers else [values]
