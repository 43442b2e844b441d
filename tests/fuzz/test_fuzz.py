"""A few files of every campaign; ``make fuzz`` runs thousands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.campaign import CAMPAIGNS, files
from tests.fuzz.forked import MOST_BYTES, Outcome, faults
from tests.support.places import ROOT

SOUND = Outcome(
    code=3, signal=0, late=False, seconds=1.0, peak_bytes=2**28, text="load\ngraphcut: error: no\n", touched=""
)


@pytest.mark.parametrize("kind", [each.name for each in CAMPAIGNS])
def test_a_few_mutated_files_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.campaign", "--kind", kind, "--seed", "3", "--count", "8"]
    ended = subprocess.run(
        [*command, "--seconds", "120", "--kept", str(tmp_path / "kept")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    said = "\n".join(path.read_text() for path in sorted(tmp_path.glob("kept/*.txt")))
    assert ended.returncode == 0, ended.stderr + said


def test_the_same_seed_gives_the_same_files() -> None:
    for campaign in CAMPAIGNS:
        first, second = files(campaign, 5), files(campaign, 5)
        assert [next(first) for _ in range(3)] == [next(second) for _ in range(3)], campaign.name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"code": 0, "text": "load\n"}, ""),
        ({"code": 1}, "exit code 1"),
        ({"code": None, "signal": 8}, "native SIGFPE"),
        ({"late": True}, "hang"),
        ({"text": "Traceback (most recent call last):\nKeyError: 1\n"}, "traceback KeyError: 1"),
        ({"text": "graphcut: error: a\ngraphcut: error: b\n"}, "2 error lines"),
        ({"text": "graphcut: error: \x1b[31mred\n"}, "control characters"),
        ({"text": f"graphcut: error: {'x' * 100_000}\n"}, "a line of 100017 characters"),
        ({"seconds": 21.0}, "21 s"),
        ({"peak_bytes": MOST_BYTES}, "6.0 GiB"),
        ({"touched": "open /etc/passwd\n"}, "touched open /etc/passwd"),
    ],
)
def test_what_is_not_sound_is_found(change: dict[str, object], said: str) -> None:
    from dataclasses import replace

    assert ("; ".join(faults(replace(SOUND, **change)))) == said  # type: ignore[arg-type]
