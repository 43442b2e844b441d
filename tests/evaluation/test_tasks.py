"""Figures of each task on answers whose value is known by hand, and the whole way on a real split."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import graphcut
from graphcut import cli
from graphcut.cli import options
from graphcut.errors import UsageError
from graphcut.evaluation.figures import Outcome, interval
from graphcut.evaluation.heads import HEADS
from graphcut.evaluation.measure import EvaluateOptions, chosen
from graphcut.evaluation.tasks import TASKS, Classification, Embedding, Segmentation, Task, Values
from graphcut.evaluation.truth import Labelled
from graphcut.records import Array
from tests.support import nets


def pictures(count: int, **known: object) -> Labelled:
    names = tuple(f"{number}.png" for number in range(count))
    return Labelled(name="data", files=tuple(map(Path, names)), names=names, **known)  # type: ignore[arg-type]


def outcome(task: Task, wanted: list[Array], got: list[Array]) -> Outcome:
    for number, (a, b) in enumerate(zip(wanted, got, strict=True)):
        task.add(number, {"float": [a], "int8": [b]})
    return task.outcome()


def figure(found: Outcome, name: str) -> float:
    return next(each.values["int8"] for each in found.figures if each.name == name)


def one_hot(*classes: int) -> list[Array]:
    return [np.eye(8, dtype=np.float32)[[number]] * 9 for number in classes]


def test_classification_counts_hits_agreement_and_changes() -> None:
    data = pictures(4, labels=("0", "1", "2", "3"))
    found = outcome(Classification(data=data, labels=()), one_hot(0, 1, 2, 7), one_hot(0, 1, 5, 3))
    assert figure(found, "top-1") == pytest.approx(0.75)
    assert figure(found, "top-1 as in float") == pytest.approx(0.5)
    assert next(each.values["float"] for each in found.figures if each.name == "top-1") == pytest.approx(0.75)
    assert {(each.float_class, each.int8_class) for each in found.changes} == {
        ("class 2", "class 5"),
        ("class 7", "class 3"),
    }
    assert {each.name for each in found.worst[:2]} == {"2.png", "3.png"}


def test_segmentation_is_the_overlap_of_the_foreground() -> None:
    wanted, got = np.zeros((1, 4, 4, 1), np.float32), np.zeros((1, 4, 4, 1), np.float32)
    wanted[0, :2], got[0, 1:3] = 0.9, 0.8
    found = outcome(Segmentation(data=pictures(1), score=0.5), [wanted], [got])
    assert figure(found, "mIoU with float's masks") == pytest.approx(4 / 12)


def test_segmentation_with_masks_leaves_pixels_out_that_are_not_judged(tmp_path: Path) -> None:
    mask = np.array([[0, 1], [255, 2]], np.uint8)
    Image.fromarray(mask).save(tmp_path / "m.png")
    scores = np.zeros((1, 2, 2, 3), np.float32)
    for row, column, label in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 1)):
        scores[0, row, column, label] = 1
    data = pictures(1, masks=(tmp_path / "m.png",))
    found = outcome(Segmentation(data=data, score=0.5), [scores], [scores])
    assert figure(found, "mIoU") == pytest.approx((1 + 0.5 + 0) / 3)


def test_embeddings_are_compared_by_angle() -> None:
    found = outcome(
        Embedding(data=pictures(2)),
        [np.array([[1, 0]], np.float32), np.array([[1, 0]], np.float32)],
        [np.array([[2, 0]], np.float32), np.array([[1, 1]], np.float32)],
    )
    assert figure(found, "cosine with float, mean") == pytest.approx((1 + 2**-0.5) / 2)
    assert figure(found, "cosine with float, least") == pytest.approx(2**-0.5)
    assert found.worst[0].name == "1.png"


def test_values_are_measured_over_all_pictures() -> None:
    wanted = [np.array([[10.0, 0]], np.float32), np.array([[0, 10.0]], np.float32)]
    got = [np.array([[11.0, 0]], np.float32), np.array([[0, 11.0]], np.float32)]
    found = outcome(Values(data=pictures(2), layers=["out"]), wanted, got)
    assert figure(found, "dB of out") == pytest.approx(20.0, abs=1e-3)
    exact = outcome(Values(data=pictures(2), layers=["out"]), wanted, wanted)
    assert figure(exact, "dB of out") == 1000.0


def test_an_interval_holds_the_figure_and_narrows_with_more_pictures() -> None:
    widths = []
    for count in (20, 500):
        values = np.random.default_rng(1).random(count) < 0.8
        ends = interval(lambda at, v=values: float(v[at].mean()), count)
        assert ends is not None
        assert ends[0] < values.mean() < ends[1]
        widths.append(ends[1] - ends[0])
    assert widths[1] < widths[0] / 3
    assert interval(lambda _: 1.0, 1) is None


def test_the_task_is_found_by_the_data_then_by_the_shapes() -> None:
    def task(data: Labelled, *shape: int, **given: object) -> str:
        return chosen(EvaluateOptions(**given), data, [np.full(shape, 0.1, np.float32)], (64, 64))[0]  # type: ignore[arg-type]

    plain = pictures(1)
    assert task(plain, 1, 10) == "classification"
    assert task(plain, 1, 64, 64, 3) == "segmentation"
    assert task(plain, 1, 84, 7) == "detection"
    assert task(plain, 1, 5, 7) == "values"
    assert task(pictures(1, labels=("0",)), 1, 10) == "classification"
    unit = np.array([[0.6, -0.8]], np.float32)
    assert chosen(EvaluateOptions(), plain, [unit], (64, 64))[0] == "embedding"
    with pytest.raises(UsageError, match="no known head"):
        task(plain, 1, 10, task="detection")
    with pytest.raises(UsageError, match="is not a vector"):
        task(pictures(1, labels=("0",)), 1, 5, 7)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    nets.saved(nets.residual(softmax=True), folder)
    rng = np.random.default_rng(99)
    for index in range(4):
        for name in (f"photos/{index}.png", f"classes/{index % 2}/{index}.png", f"classes/1/other{index}.png"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            small = np.random.default_rng(index) if "other" not in name else rng
            pixels = Image.fromarray(small.integers(0, 256, (8, 8, 3), np.uint8))
            pixels.resize((60, 50), Image.Resampling.BICUBIC).save(folder / name)
    prepared = ["--mean", "127.5", "--std", "127.5", "--calibration", str(folder / "photos"), "--effort", "fast"]
    assert cli.main(["split", str(folder / "model.onnx"), "-o", str(folder / "out"), "--segments", "2", *prepared]) == 0
    return folder


def test_a_split_is_evaluated_and_the_result_kept(split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    words = ["evaluate", str(split / "out"), str(split / "classes")]
    assert cli.main([*words, "--save", "--json", "--devices", "cpu"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["task"], said["pictures"], said["seen"], said["labelled"]) == ("classification", 8, 4, True)
    names = {each["name"] for each in said["figures"]}
    assert "top-1" in names
    assert "top-1 as in float" in names
    for each in said["figures"]:
        assert each["values"]["on cpu"] == each["values"]["int8"], "the same interpreter"
    found = graphcut.open(split / "out").evaluate(split / "classes")
    kept = json.loads((split / "out/meta.json").read_text())["evaluation"]
    assert {each["name"]: each["values"]["int8"] for each in kept["figures"]} == {
        each.name: each.values["int8"] for each in found.figures
    }
    assert cli.main(["verify", str(split / "out")]) == 0
    capsys.readouterr()
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert "4 of them were used for calibration" in text
    assert "against the labels" in text


def test_wrong_options_are_one_line(split: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "anchors.npy", np.zeros((3, 2), np.float32))
    (tmp_path / "labels.txt").write_text("a\nb\n")
    out, photos = str(split / "out"), str(split / "photos")
    for words in (
        [out, str(tmp_path / "nothing")],
        [out, photos, "--task", "segmentation"],
        [out, photos, "--head", "yolov8"],
        [out, photos, "--anchors", str(tmp_path / "anchors.npy")],
        [out, str(split / "classes"), "--labels", str(tmp_path / "labels.txt")],
        [out, photos, "--devices", "gpu"],
        [out, photos, "--score", "2"],
        [photos, photos],
    ):
        capsys.readouterr()
        assert cli.main(["evaluate", *words]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert [line for line in said.err.splitlines() if line.startswith("graphcut: error: ")]


def test_run_draws_the_classes_onto_the_picture(
    split: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, out = split / "photos/0.png", tmp_path / "drawn.png"
    words = ["run", str(split / "out"), str(picture)]
    assert cli.main([*words, "--draw", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["drawn"] == [str(out)]
    with Image.open(out) as drawn, Image.open(picture) as original:
        assert drawn.size == original.size == (60, 50)
        assert (np.asarray(drawn) != np.asarray(original.convert("RGB"))).any()
        again = graphcut.open(split / "out").draw(picture)
        assert (np.asarray(again) == np.asarray(drawn)).all()
    several = [*words, str(split / "photos/1.png"), "--draw"]
    assert cli.main([*several, str(tmp_path / "all")]) == 0
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["0.png", "1.png"]
    before = picture.read_bytes()
    for bad in (
        [*words, "--draw", str(picture)],
        [*words, "--draw", str(tmp_path / "drawn.jpg")],
        [*several, str(tmp_path / "all")],
        [*words, "--draw", str(tmp_path / "other.png"), "--task", "detection"],
    ):
        capsys.readouterr()
        assert cli.main(bad) == 2
        assert "graphcut: error: " in capsys.readouterr().err
    assert picture.read_bytes() == before
    assert not (tmp_path / "other.png").exists()


def test_the_command_line_knows_every_task_and_head() -> None:
    assert options.TASKS == TASKS
    assert {*options.HEADS} == {head.name for head in HEADS}
