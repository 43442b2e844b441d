"""Programs of others: captured, limited, and gone with all their children."""

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from graphcut.workers import process


def python(code: str, folder: Path, seconds: float = 20, **more: object) -> process.Finished:
    return process.run([sys.executable, "-S", "-c", code], folder=folder, seconds=seconds, **more)  # type: ignore[arg-type]


def gone(identity: int) -> bool:
    for _ in range(100):
        try:
            os.kill(identity, 0)
        except ProcessLookupError:
            return True
        status = Path(f"/proc/{identity}/stat")
        if status.is_file() and status.read_text().split()[2] == "Z":
            return True  # dead; whoever adopted it has not looked yet
        time.sleep(0.02)
    return False


def test_what_it_prints_and_how_it_ends(tmp_path: Path) -> None:
    finished = python("import sys; print('one', flush=True); print('two', file=sys.stderr); sys.exit(3)", tmp_path)
    assert (finished.code, finished.signal, finished.timed_out) == (3, "", False)
    assert finished.output == "one\ntwo\n"


def test_it_runs_in_its_folder_without_input_and_with_its_variables(tmp_path: Path) -> None:
    finished = python(
        "import os, sys; print(os.getcwd(), repr(sys.stdin.read()), os.environ['A'])", tmp_path, environment={"A": "b"}
    )
    assert finished.output == f"{tmp_path.resolve()} '' b\n"


def test_a_signal_is_named(tmp_path: Path) -> None:
    finished = python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", tmp_path)
    assert (finished.code, finished.signal) == (None, "SIGSEGV")


def test_a_limit_ends_it_and_its_children(tmp_path: Path) -> None:
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    start = time.monotonic()
    finished = python(code, tmp_path, seconds=1)
    assert time.monotonic() - start < 40
    assert finished.timed_out
    assert finished.code is None
    assert gone(int(finished.output))


def test_a_child_that_keeps_the_output_open_does_not_delay_the_end(tmp_path: Path) -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid)"
    start = time.monotonic()
    finished = python(code, tmp_path)
    assert time.monotonic() - start < 40
    assert finished.code == 0
    assert gone(int(finished.output))


def test_one_that_closes_its_output_and_works_on_is_waited_for(tmp_path: Path) -> None:
    finished = python("import os, time; os.close(1); os.close(2); time.sleep(0.5); os._exit(7)", tmp_path)
    assert finished.code == 7
    assert finished.seconds >= 0.5


def test_of_a_flood_both_ends_are_kept(tmp_path: Path) -> None:
    finished = python("print('first' + 'x' * 3_000_000 + 'last', end='')", tmp_path, most_output=1000)
    assert finished.output.startswith("first")
    assert finished.output.endswith("last")
    assert "2999009 bytes omitted" in finished.output
    assert len(finished.output) < 1100


def test_another_thread_can_stop_it(tmp_path: Path) -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    start = time.monotonic()
    assert python("import time; time.sleep(60)", tmp_path, seconds=50, stop=stop).timed_out
    assert time.monotonic() - start < 40


def test_what_cannot_be_started_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        process.run([str(tmp_path / "none")], folder=tmp_path, seconds=1)
    (tmp_path / "text").write_text("not a program")
    with pytest.raises(PermissionError):
        process.run([str(tmp_path / "text")], folder=tmp_path, seconds=1)
