"""The output folder: whole or not at all, with real disks and real dead processes."""

import errno
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from graphcut import files, staging
from graphcut.errors import OutputError, UsageError
from graphcut.result import layout
from tests.support import made_split
from tests.support.places import ROOT


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def write_result(folder: Path, text: str = "") -> None:
    (folder / "a.bin").write_text("0")
    listed = '"files": {"a.bin": {"bytes": 1, "sha256": ""}}'
    (folder / "meta.json").write_text(f'{{"schema_version": 1, "graphcut_version": "0", {listed}}}')
    (folder / "note.txt").write_text(text)


@contextmanager
def file_size_limit(limit_bytes: int) -> Iterator[None]:
    """Make the disk full after so many bytes, as far as this process can tell."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def stage_and_fail(out: Path, error: BaseException, force: bool = False) -> None:
    with staging.staging(out, force) as folder:
        write_result(folder, "new")
        raise error


def test_folder_appears_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "er" / "out"
    with staging.staging(out, force=False) as folder:
        (folder / "a").write_text("1")
        assert folder.parent == out.parent
        assert not out.exists()
    assert (out / "a").read_text() == "1"
    assert names(out.parent) == ["out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_nothing_stays_after_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    out = tmp_path / "deep" / "out"
    with pytest.raises(error):
        stage_and_fail(out, error())
    assert names(tmp_path) == []


def test_existing_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_result(out)
    with pytest.raises(UsageError, match=r"out exists: .*force"):
        staging.check_target(out, force=False)
    with pytest.raises(UsageError, match="exists"), staging.staging(out, force=False):
        pytest.fail("the block ran")


def test_empty_folder_is_no_result(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    staging.check_target(out, force=False)
    with staging.staging(out, force=False) as folder:
        (folder / "a").write_text("1")
    assert names(out) == ["a"]


def test_force_replaces_a_result_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years")
    with pytest.raises(UsageError, match="is not a result of graphcut"):
        staging.check_target(out, force=True)
    (out / "thesis.tex").unlink()
    write_result(out, "old")
    with staging.staging(out, force=True) as folder:
        write_result(folder, "new")
        assert (out / "note.txt").read_text() == "old"
    assert (out / "note.txt").read_text() == "new"
    assert names(tmp_path) == ["out"]


def test_force_keeps_the_earlier_result_after_an_error(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_result(out, "old")
    with pytest.raises(ValueError, match="boom"):
        stage_and_fail(out, ValueError("boom"), force=True)
    assert (out / "note.txt").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_result_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    staged = staging.staging(out, force=False)
    staged.__enter__()
    out.mkdir()
    write_result(out, "theirs")
    with pytest.raises(UsageError, match="exists"):
        staged.__exit__(None, None, None)
    assert (out / "note.txt").read_text() == "theirs"
    assert names(tmp_path) == ["out"]


def test_file_in_the_way(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "out", file / "deep" / "out"):
        with pytest.raises((OutputError, UsageError), match=str(file)):
            staging.check_target(out, force=True)
    assert file.read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, a folder nobody can write to")
def test_folder_nobody_can_write_to() -> None:
    for out in (Path("/proc/graphcut-out"), Path("/proc/deep/graphcut-out")):
        with pytest.raises(OutputError, match="choose another with out"):
            staging.check_target(out, force=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        staging.check_target(tmp_path / "out", force=False)
    tmp_path.chmod(0o700)


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        pytest.raises(OutputError, match=r"cannot write .*out: File too large"),
        staging.staging(out, force=False) as folder,
        file_size_limit(4096),
    ):
        files.write_arrays(folder / "samples.npz", {"x": np.zeros((8, 3, 32, 32), np.float32)})
    assert names(tmp_path) == []


def test_a_copy_that_finds_no_room_is_one_line_too(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "model.tflite"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(bytes(10_000))
    out = tmp_path / "there" / "out"
    with (
        pytest.raises(OutputError, match=r"cannot write .*out: File too large"),
        staging.staging(out, force=False) as folder,
        file_size_limit(4096),
    ):
        shutil.copyfile(elsewhere, folder / "model.tflite")
    assert not out.parent.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_no_space_left(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="No space left on device"),
        staging.staging(tmp_path / "out", force=False),
    ):
        Path("/dev/full").write_bytes(b"x" * 10)
    assert names(tmp_path) == []


def test_too_little_room_is_said_early(tmp_path: Path) -> None:
    needed_bytes = 2 * shutil.disk_usage(tmp_path).total
    with pytest.raises(OutputError, match="MiB left, but out needs about"):
        staging.check_target(tmp_path / "out", force=False, needed_bytes=needed_bytes)
    assert names(tmp_path) == []


def test_other_errors_of_the_block_keep_their_type(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), staging.staging(tmp_path / "out", force=False):
        raise FileNotFoundError(errno.ENOENT, "no such model")
    with pytest.raises(PermissionError), staging.staging(tmp_path / "out", force=False):
        raise PermissionError(errno.EACCES, "denied", "/elsewhere/model.onnx")


def left_behind(folder: Path, name: str) -> Path:
    """A staging folder of a process that died."""
    made = folder / f".out.{name}"
    made.mkdir()
    return made


def lock(folder: Path, token: str, content: bytes = files._LOCK) -> Path:
    path = folder / f".out.partial-{token}.lock"
    path.write_bytes(content)
    return path


def test_only_folders_of_ours_that_nobody_holds_are_swept(tmp_path: Path) -> None:
    ours, foreign, wrong, held = "0" * 12, "1" * 12, "2" * 12, "3" * 12
    for token in (ours, foreign, wrong, held):
        (left_behind(tmp_path, f"partial-{token}") / "half").write_text("x")
    left_behind(tmp_path, "partial-1")  # as another program, or an older graphcut, may name one
    for token in (ours, held):
        lock(tmp_path, token)
    lock(tmp_path, wrong, b"somebody else's\n")
    with (tmp_path / f".out.partial-{held}.lock").open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with staging.staging(tmp_path / "out", force=False) as folder:
            (folder / "a").write_text("1")
    kept = [f".out.partial-{token}" for token in (foreign, wrong, held)]
    locks = [f".out.partial-{token}.lock" for token in (wrong, held)]
    assert names(tmp_path) == sorted([".out.partial-1", *kept, *locks, "out"])


def test_a_result_lost_in_the_middle_of_its_replacement_comes_back(tmp_path: Path) -> None:
    write_result(left_behind(tmp_path, f"old-{'0' * 12}"), "old")
    lock(tmp_path, "0" * 12)
    with pytest.raises(ValueError, match="boom"), staging.staging(tmp_path / "out", force=True):
        raise ValueError("boom")
    assert (tmp_path / "out" / "note.txt").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_a_foreign_old_folder_never_becomes_the_result(tmp_path: Path) -> None:
    left_behind(tmp_path, "old-1")
    with pytest.raises(ValueError, match="boom"), staging.staging(tmp_path / "out", force=False):
        raise ValueError("boom")
    assert names(tmp_path) == [".out.old-1"]


@pytest.mark.parametrize("at_once", [True, False])
def test_replacement_with_and_without_an_atomic_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    if not at_once:
        monkeypatch.setattr(staging, "_exchange", lambda *_: False)
    (tmp_path / "out").mkdir()
    write_result(tmp_path / "out", "old")
    with staging.staging(tmp_path / "out", force=True) as folder:
        write_result(folder, "new")
        assert (tmp_path / "out" / "note.txt").read_text() == "old"
    assert (tmp_path / "out" / "note.txt").read_text() == "new"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("what", ["file", "nested", "link", "changed", "folder"])
def test_force_does_not_delete_what_is_not_ours(tmp_path: Path, what: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_result(out, "old")
    mine = {"file": "mine.txt", "nested": "photos/1.png", "link": "link", "changed": "a.bin", "folder": "empty"}[what]
    (out / mine).parent.mkdir(exist_ok=True)
    if what == "link":
        (out / mine).symlink_to(tmp_path)
    elif what == "folder":
        (out / mine).mkdir()
    else:
        (out / mine).write_text("of the user")
    with pytest.raises(UsageError, match=f"not part of the result.*{mine}"):
        staging.check_target(out, force=True)
    with pytest.raises(UsageError, match="not part of the result"), staging.staging(out, force=True):
        raise AssertionError("nothing is begun")
    assert os.path.lexists(out / mine)
    assert (out / "note.txt").read_text() == "old"


@pytest.mark.parametrize("manifest", ['{"schema_version": 7}', "[]", '{"schema_version": 1, "graphcut_version": "1"}'])
def test_a_photo_folder_with_a_meta_json_is_not_ours(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "meta.json").write_text(manifest)
    (tmp_path / "photos" / "1.png").write_text("a picture")
    with pytest.raises(UsageError, match="is not a result of graphcut"):
        staging.check_target(tmp_path / "photos", force=True)


def test_of_two_runs_at_once_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one publishes between the last look at OUT and the rename."""
    out, looked = tmp_path / "out", staging._refuse_existing
    looks = []

    def look(target: Path, force: bool) -> None:
        looked(target, force)
        looks.append(target)
        if len(looks) == 2:
            out.mkdir()
            write_result(out, "of the other run")

    monkeypatch.setattr(staging, "_refuse_existing", look)
    with pytest.raises(UsageError, match="out exists"), staging.staging(out, force=False) as folder:
        write_result(folder, "ours")
    assert (out / "note.txt").read_text() == "of the other run"
    assert names(tmp_path) == ["out"]


def test_many_runs_at_once_leave_one_whole_result(tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = (
        "import pathlib, sys\n"
        "from graphcut import staging\n"
        "from tests.result.test_layout import write_result\n"
        "for number in range(100):\n"
        "    with staging.staging(pathlib.Path(sys.argv[1]), force=True) as folder:\n"
        "        write_result(folder, f'{sys.argv[2]} {number}')\n"
    )
    runs = [subprocess.Popen([sys.executable, "-c", program, str(out), name], cwd=ROOT) for name in ("a", "b", "c")]
    assert [run.wait(timeout=120) for run in runs] == [0, 0, 0]
    assert names(tmp_path) == ["out"]
    assert names(out) == ["a.bin", "meta.json", "note.txt"]
    assert (out / "note.txt").read_text() in ("a 99", "b 99", "c 99")


def test_a_lock_that_a_sweep_took_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run sweeps between the creation of a lock and its locking."""
    lock_it, sweeps = fcntl.flock, []

    def flock(held: int, how: int) -> None:
        if not sweeps:
            sweeps.append(held)
            files.sweep(tmp_path / "out")
        lock_it(held, how)

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with staging.staging(tmp_path / "out", force=False) as folder:
        assert folder.with_name(f"{folder.name}.lock").is_file()
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("full", [True, False])
def test_a_mount_point_is_refused_in_a_line(tmp_path: Path, full: bool) -> None:
    out = tmp_path / "out"
    out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(out)], capture_output=True, check=False).returncode:
        pytest.skip("only root can mount")
    try:
        if full:
            write_result(out)
        for force in (True, False):
            with pytest.raises(UsageError, match="is a mount point"):
                staging.check_target(out, force)
        staging.check_target(out / "inside", force=False)
    finally:
        subprocess.run(["umount", str(out)], check=True)


def test_a_file_takes_the_place_of_regular_files_only(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "mine.npy").write_text("old")
    (tmp_path / "link.npy").symlink_to("real/mine.npy")
    files.write_bytes(tmp_path / "link.npy", b"new")
    assert (tmp_path / "link.npy").is_symlink()
    assert (tmp_path / "real" / "mine.npy").read_bytes() == b"new"
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "circle.npy").symlink_to("circle.npy")
    for place in (tmp_path / "pipe.npy", tmp_path / "circle.npy", Path(os.devnull), tmp_path / "real"):
        with pytest.raises(UsageError, match="is not a regular file"):
            files.write_bytes(place, b"new")
    with pytest.raises(UsageError, match="is not a folder"):
        staging.check_target(tmp_path / "circle.npy", force=True)
    assert names(tmp_path) == ["circle.npy", "link.npy", "pipe.npy", "real"]
    assert names(tmp_path / "real") == ["mine.npy"]


def test_killed_process_leaves_no_result_and_the_next_run_cleans(tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = (
        "import sys, time, pathlib\n"
        "from graphcut import staging\n"
        "with staging.staging(pathlib.Path(sys.argv[1]), force=False) as folder:\n"
        "    (folder / 'half').write_text('x')\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(out)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with staging.staging(tmp_path / "other", force=False):
            pass
        assert any(name.startswith(".out.partial-") for name in names(tmp_path))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not out.exists()
    with staging.staging(out, force=False) as folder:
        (folder / "a").write_text("1")
    assert names(tmp_path) == ["other", "out"]


def test_array_files_depend_on_the_arrays_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    arrays = {"image:0": rng.random((2, 3, 4, 4), np.float32), "file": rng.random((2, 5), np.float32)}
    files.write_arrays(tmp_path / "a.npz", arrays)
    time.sleep(0.01)
    files.write_arrays(tmp_path / "b.npz", {name: np.asfortranarray(array) for name, array in arrays.items()})
    assert files.sha256_of(tmp_path / "a.npz") == files.sha256_of(tmp_path / "b.npz")
    with np.load(tmp_path / "a.npz") as read:
        assert list(read) == ["image:0", "file"]
        for name, array in arrays.items():
            np.testing.assert_array_equal(read[name], array)


def test_layout_of_three_segments(tmp_path: Path) -> None:
    made = made_split.make(tmp_path, 3)
    layout.lay_out(tmp_path, made.segments, made.tails)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == [
        "full_split/tflite/seg1_int8.tflite",
        "full_split/tflite/seg2_int8.tflite",
        "full_split/tflite/seg3_int8.tflite",
        "pairs_k2/tflite/seg1_int8.tflite",
        "pairs_k2/tflite/tail_seg2_to_3_int8.tflite",
        "pairs_k3/tflite/seg1_int8.tflite",
        "pairs_k3/tflite/seg2_int8.tflite",
        "pairs_k3/tflite/tail_seg3_to_3_int8.tflite",
        "segments/seg1.onnx",
        "segments/seg2.onnx",
        "segments/seg3.onnx",
        "unsplit/unsplit_int8.tflite",
    ]
    for k in (2, 3):
        for index in range(1, k):
            assert layout.prefix_tflite(tmp_path, k, index).samefile(layout.segment_tflite(tmp_path, index))
    assert layout.tail_tflite(tmp_path, 3, 3).samefile(layout.segment_tflite(tmp_path, 3))
    sums = (tmp_path / "pairs_k2" / "tflite" / "tail_seg2_to_3_int8.tflite").stat().st_size
    assert sums == made.segments[1].segment.tflite_bytes + made.segments[2].segment.tflite_bytes


def test_layout_of_one_segment(tmp_path: Path) -> None:
    made = made_split.make(tmp_path, 1)
    layout.lay_out(tmp_path, made.segments, made.tails)
    assert not list(tmp_path.glob("pairs_k*"))
    assert layout.tail_tflite(tmp_path, 1, 1).samefile(layout.segment_tflite(tmp_path, 1))
