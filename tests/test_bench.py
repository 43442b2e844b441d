"""The bench's own arithmetic; the runs themselves take minutes (make bench)."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load_bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("graphcut_bench", ROOT / "tools" / "bench.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclass looks its module up
    spec.loader.exec_module(module)
    return module


bench = load_bench()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="memory is read from /proc")
def test_memory_of_a_child_counts() -> None:
    program = (
        "import subprocess, sys\n"
        "child = 'held = bytearray(200 * 2**20); import time; time.sleep(1)'\n"
        "subprocess.run([sys.executable, '-c', child])\n"
    )
    run = bench.run([sys.executable, "-c", program])
    assert 200 * 2**20 < run.peak_bytes < 300 * 2**20
    assert run.seconds > 1


def test_a_run_that_fails_is_an_error_with_its_last_words() -> None:
    with pytest.raises(bench.BenchError, match=r"exit code 3:\n(.*\n)*the reason"):
        bench.run([sys.executable, "-c", "print('the reason'); raise SystemExit(3)"])


def test_artifacts_are_listed_once_under_the_plain_names(tmp_path: Path) -> None:
    files = {
        "full_split/tflite/seg1_int8.tflite": 10,
        "full_split/tflite/seg2_int8.tflite": 20,
        "pairs_k2/tflite/seg1_int8.tflite": 10,
        "pairs_k2/tflite/tail_seg2_to_2_int8.tflite": 20,
        "unsplit/unsplit_int8.tflite": 30,
    }
    for name, size in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    assert bench.sizes(tmp_path) == {"seg1": 10, "seg2": 20, "tail_k2": 20, "unsplit": 30}


def test_the_table_says_ratio_sizes_and_memory() -> None:
    def figures(seconds: float, artifacts: dict[str, int]) -> dict[str, object]:
        listed = [{"name": name, "bytes": size} for name, size in artifacts.items()]
        return {"seconds": seconds, "peak_bytes": 2**31, "artifacts": listed}

    table = bench.table(
        {
            "ratio": 12.34,
            "plain": figures(100.0, {"seg1": 2**20}),
            "graphcut_per_tensor": figures(8.0, {"seg1": 2**20, "unsplit": 2**22}),
            "graphcut": figures(8.1, {"seg1": 2**21, "unsplit": 2**22}),
            "cores": os.cpu_count(),
        }
    )
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line}
    assert rows["seg1"] == ["1.000", "1.000", "2.000"]
    assert rows["unsplit"] == ["-", "4.000", "4.000"]
    assert rows["seconds"] == ["100.0", "8.0", "8.1"]
    assert rows["peak"] == ["GiB", "2.00", "2.00", "2.00"]
    assert "1/12.3 of the plain recipe's time" in table
