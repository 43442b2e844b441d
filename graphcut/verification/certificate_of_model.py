"""Check a plan's certificate by itself, for the files made from it, and for a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphcut.analysis.digest import digest
from graphcut.errors import VerificationError
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.search import arrange
from graphcut.prediction.segment_costs import Costs
from graphcut.prediction.sizes import Sizes, predict
from graphcut.records import Graph, Segment
from graphcut.verification.check_certificate import attest, attest_model

Json = Mapping[str, Any]


def findings(certificate: Json, segments: Sequence[Segment] = ()) -> tuple[str, ...]:
    """Check a certificate by itself, and that it belongs to these segments.

    Args:
        certificate: the document.
        segments: of a plan, or measured, without one for the CPU; empty to skip them.
    """
    found = attest(certificate)
    if found or not segments:
        return found
    positions = certificate["places"]["positions"]
    bounds = [positions[place] for place in (0, *certificate["cuts"], len(positions) - 1)]
    own = [segments[0].start, *(segment.stop for segment in segments)]
    if bounds != own:
        return (f"it cuts at nodes {bounds[1:-1]}, but the segments end at {own[1:-1]}",)
    return ()


def model_findings(
    certificate: Json, graph: Graph, options: Callable[[], PlanOptions], min_rank: int | None = None
) -> tuple[str, ...]:
    """Check a sound certificate against a model.

    Args:
        certificate: for which :func:`findings` returns nothing.
        graph: of the model, normalised.
        options: of the plan; used where the plan reorders the graph, splits its layers or leaves nodes to the CPU.
        min_rank: of the plan.
    """

    def measure(each: Graph) -> Sizes:
        return predict(each, per_channel=bool(certificate["per_channel"]))

    border = None
    if certificate["graph"] != digest(graph) or options().until is not None:
        analysis = arrange(graph, options(), measure, min_rank).analysis
        graph, border = analysis.graph, analysis.border
    sizes = measure(graph)
    costs = Costs(graph, sizes, per_channel=sizes.per_channel)
    return attest_model(certificate, graph, sizes, costs, border)


def require(found: Sequence[str], where: str) -> None:
    """Refuse an invalid certificate.

    Raises:
        VerificationError: with the first finding.
    """
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise VerificationError(
            f"the plan's certificate in {where} is not valid: {found[0]}{more}", "plan or split the model again"
        )
