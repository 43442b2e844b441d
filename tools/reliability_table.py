"""Write the tables of docs/explanation/reliability.md from the result files of campaigns, and from nothing else.

``python -m tools.reliability_table RESULT.json ...`` reads what ``tests.fuzz.campaign`` and ``tests.crash.kills`` write
with ``--json``, and replaces what stands between the marks in the page.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "reliability.md"
BEGIN, END = "<!-- campaigns: begin -->", "<!-- campaigns: end -->"
KINDS = {
    "onnx": "ONNX, fields changed",
    "neighbours": "ONNX, hostile operators",
    "tflite": "TFLite",
    "compiled": "compiled for the Edge TPU",
    "hdf5": "Keras, `.h5`",
    "keras": "Keras, `.keras`",
    "pt2": "PyTorch, `.pt2`",
    "recipe": "recipe",
    "npz": "arrays, `.npz`",
    "npy": "array, `.npy`",
    "picture": "picture",
    "folder": "folder of a split",
    "plan": "plan with certificate",
}


def tables(documents: Sequence[Mapping[str, Any]]) -> str:
    """The tables of some result files: what was read, what was found, what was killed."""
    fuzz = [each for each in documents if each["campaign"] == "fuzz"]
    crash = [each for each in documents if each["campaign"] == "crash"]
    parts = [_files(fuzz), _found(documents)]
    if crash:
        parts.append(_kills(crash))
    return "\n\n".join(part for part in parts if part)


def _files(documents: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| kind of file | days | files | read | refused | found |", "|---|---|---:|---:|---:|---:|"]
    total = 0
    for kind, title in KINDS.items():
        counts = [(each["date"], each["kinds"][kind]) for each in documents if kind in each["kinds"]]
        files = sum(count["files"] for _, count in counts)
        if not files:
            continue
        total += files
        read = sum(count["codes"].get("0", 0) for _, count in counts)
        refused = sum(number for _, count in counts for code, number in count["codes"].items() if _documented(code))
        days = _days(day for day, _ in counts)
        lines.append(f"| {title} | {days} | {files:,} | {read:,} | {refused:,} | {_shown(counts)} |")
    lines.append(f"| all | | {total:,} | | | |")
    return "\n".join(lines)


def _documented(code: str) -> bool:
    return code.isdecimal() and 2 <= int(code) <= 11


def _shown(counts: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    return f"{sum(_faults(count).total() for _, count in counts):,}"


def _faults(count: Mapping[str, Any]) -> Counter[str]:
    """What was wrong, how often; the exit code of a traceback says the same twice."""
    found = Counter(count["faults"])
    if any(name.startswith("traceback") for name in found):
        found = Counter({name: number for name, number in found.items() if not name.startswith("exit code")})
    return found


def _found(documents: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for document in documents:
        for kind, count in document["kinds"].items():
            for what, number in sorted(_faults(count).items()):
                lines.append(f"| {document['date']} | {KINDS.get(kind, kind)} | {number} | {_cell(what)} |")
    if not lines:
        return "Nothing was found."
    return "\n".join(["| day | kind | times | what was found |", "|---|---|---:|---|", *sorted(lines)])


def _kills(documents: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| what was killed | days | kills | old result kept | new result there | found |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for kind in dict.fromkeys(kind for each in documents for kind in each["kinds"]):
        counts = [(each["date"], each["kinds"][kind]) for each in documents if kind in each["kinds"]]
        numbers = [sum(count[name] for _, count in counts) for name in ("kills", "old", "new")]
        found = sum(len(count["faults"]) for _, count in counts)
        cells = [*(f"{number:,}" for number in numbers), f"{found:,}"]
        lines.append(f"| {kind} | {_days(day for day, _ in counts)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _days(days: Iterable[str]) -> str:
    """One day, or the first and the last one."""
    ordered = sorted(set(days))
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"


def _cell(text: str) -> str:
    return f"`{text.replace('|', '/').replace('`', '')}`"


def main(arguments: list[str] | None = None) -> int:
    """Write the page anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+")
    chosen = parser.parse_args(arguments)
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in chosen.results]
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables(documents)}\n\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
