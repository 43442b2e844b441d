"""The outcome of checking a model's rewrites (:mod:`graphcut.graph.model_check`), kept for the next time it is read.

The same file, read the same way by the same code, has the same outcome. Its rewrites are applied, not checked again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from graphcut.cache_folder import EarlierResults, fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Which rewrites keep the result.

    Attributes:
        left_out: names of those that do not.
        notes: what the user is told of these.
        error: the largest relative difference that the others make.
    """

    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    error: float


class KnownVerdict:
    """Where the outcome for one model is kept.

    Args:
        results: the cache; None to check every time.
        what: all that the outcome depends on beside the code, as JSON values.
    """

    def __init__(self, results: EarlierResults | None, *what: Any) -> None:
        self._results = results
        said = json.dumps(["rewrites", fingerprint() if results else "", what], sort_keys=True)
        self._key = hashlib.sha256(said.encode()).hexdigest()

    def get(self) -> Verdict | None:
        """The outcome of an earlier time; None where there is none."""
        content = self._results.get(self._key) if self._results else None
        if content is None:
            return None
        found = json.loads(content)
        return Verdict(left_out=tuple(found["left_out"]), notes=tuple(found["notes"]), error=found["error"])

    def put(self, verdict: Verdict) -> None:
        """Keep an outcome."""
        if self._results is not None:
            self._results.put(self._key, json.dumps(asdict(verdict)).encode())
