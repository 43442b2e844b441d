"""What a pass is.

A pass looks for one pattern and replaces it by something that computes the same. It is linear in the graph's size,
deterministic, applies only where it can prove that the pattern holds, and is checked numerically by
:mod:`graphcut.graph.normalise` wherever it matched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphcut.graph.net import Net


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """A named rewrite.

    Attributes:
        name: in kebab-case, shown to users.
        reason: why it exists: what goes wrong without it.
        apply: edits the graph and returns how often the pattern matched; 0 means that nothing was changed.
    """

    name: str
    reason: str
    apply: Callable[[Net], int]
