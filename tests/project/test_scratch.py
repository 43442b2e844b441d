"""Temporary folders: private, gone at the end, and those of killed processes removed by the next run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from graphcut import files
from graphcut.errors import OutputError

HOLDER = """
import sys, time
from graphcut import files
with files.scratch() as folder:
    (folder / "kept").write_text("x")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_private_and_gone_at_the_end(root: Path) -> None:
    with files.scratch() as folder:
        assert folder.parent == root
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "a").write_text("a")
    assert list(root.iterdir()) == []


def test_a_killed_process_s_folder_is_removed_and_a_living_one_s_stays(root: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(root)}
    holders = [
        subprocess.Popen([sys.executable, "-c", HOLDER], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        dead, living = (Path(holder.stdout.readline().strip()) for holder in holders if holder.stdout)
        holders[0].send_signal(signal.SIGKILL)
        holders[0].wait()
        assert (dead / "kept").exists()
        with files.scratch():
            assert not dead.exists()
            assert (living / "kept").exists()
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()
            if holder.stdout:
                holder.stdout.close()


def test_where_no_folder_can_be_made_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(root / "missing"))
    said = r"cannot create a temporary folder in .*missing.*: free space, or set TMPDIR"
    with pytest.raises(OutputError, match=said), files.scratch():
        pass
