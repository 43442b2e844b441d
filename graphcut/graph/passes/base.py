"""Definition of a pass.

A pass finds one pattern and replaces it by operators that compute the same. It is deterministic, linear in the size of
the graph, and applies only where it can prove that the pattern matches. It is checked numerically by
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
        reason: why it exists, that is, what goes wrong without it.
        apply: edits the graph and returns how often the pattern matched; 0 means that nothing was changed.
    """

    name: str
    reason: str
    apply: Callable[[Net], int]
