"""What a result file says of itself: what made it, when, and from which commit."""

from __future__ import annotations

import datetime
import subprocess

from tests.support.places import ROOT


def provenance(campaign: str) -> dict[str, str]:
    """Name, day and commit of a campaign; "unknown" where the tests are no repository."""
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=8", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"campaign": campaign, "date": today, "commit": asked.stdout.strip() or "unknown"}
