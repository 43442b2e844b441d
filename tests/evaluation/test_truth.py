"""What DATA can be, and what is refused with one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graphcut.errors import UsageError
from graphcut.evaluation.truth import class_numbers, read


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 20), (1, 2, 3)).save(path)
    return path


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    for name in ("cat/a.png", "cat/b.png", "dog/c.png"):
        picture(tmp_path / name)
    found = read(tmp_path)
    assert found.names == ("cat/a.png", "cat/b.png", "dog/c.png")
    assert found.labels == ("cat", "cat", "dog")
    assert found.first(2).labels == ("cat", "cat")


def test_a_csv_file(tmp_path: Path) -> None:
    picture(tmp_path / "pictures/a.png")
    (tmp_path / "labels.csv").write_text("file,label\na.png,Egyptian cat\n")
    assert read(tmp_path / "labels.csv", tmp_path / "pictures").labels == ("Egyptian cat",)
    with pytest.raises(UsageError, match=r"names 'a.png', which is not in"):
        read(tmp_path / "labels.csv")


def test_yolo_labels_beside_and_apart(tmp_path: Path) -> None:
    picture(tmp_path / "beside/a.png")
    (tmp_path / "beside/a.txt").write_text("2 0.5 0.5 0.2 0.4\n")
    picture(tmp_path / "apart/images/a.png")
    picture(tmp_path / "apart/images/b.png")
    (tmp_path / "apart/labels").mkdir()
    (tmp_path / "apart/labels/a.txt").write_text("2 0.5 0.5 0.2 0.4\n")
    for name, count in (("beside", 1), ("apart", 2)):
        found = read(tmp_path / name)
        assert len(found) == count
        assert found.boxes[0].corners.tolist() == [pytest.approx([0.4, 0.3, 0.6, 0.7])]
        assert found.boxes[0].classes.tolist() == [2]
    assert len(read(tmp_path / "apart").boxes[1]) == 0


def coco(folder: Path, **changed: object) -> Path:
    document = {
        "images": [{"id": 7, "file_name": "a.png", "width": 40, "height": 20}],
        "categories": [{"id": 90, "name": "b"}, {"id": 3, "name": "a"}],
        "annotations": [{"image_id": 7, "category_id": 90, "bbox": [10, 5, 20, 10], "iscrowd": 1}],
        **changed,
    }
    (folder / "coco.json").write_text(json.dumps(document))
    return folder / "coco.json"


def test_coco(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    found = read(coco(tmp_path))
    assert found.categories == ("a", "b")
    assert found.boxes[0].corners.tolist() == [pytest.approx([0.25, 0.25, 0.75, 0.75])]
    assert found.boxes[0].classes.tolist() == [1]
    assert found.crowds == ((True,),)


def test_masks(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.zeros((20, 40), np.uint8)).save(tmp_path / "masks/a.png")
    assert [mask.name for mask in read(tmp_path).masks] == ["a.png"]
    picture(tmp_path / "b.jpg")
    with pytest.raises(UsageError, match=r"no mask .*b\.png"):
        read(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"images": [{"id": 7, "file_name": "../out.png", "width": 40, "height": 20}]},
        {"images": [{"id": 7, "file_name": "a\0.png", "width": 40, "height": 20}]},
        {"images": [{"id": 7, "file_name": "a.png", "width": 0, "height": 20}]},
        {"images": 3},
        {"categories": []},
        {"annotations": [{"image_id": 8, "category_id": 90, "bbox": [0, 0, 1, 1]}]},
        {"annotations": [{"image_id": 7, "category_id": 90, "bbox": [0, 0, 1]}]},
        {"annotations": [{"image_id": 7, "category_id": 90, "bbox": [0, 0, 1e999, 1]}]},
    ],
)
def test_bad_annotations_are_one_line(tmp_path: Path, changed: dict[str, object]) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path.parent / "out.png")
    with pytest.raises(UsageError) as error:
        read(coco(tmp_path, **changed))
    assert "coco.json" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["1 0.5 0.5 0.2", "x 0 0 0 0", "1 nan 0 0 0", "-1 0 0 0 0", "9999999 0 0 0 0"])
def test_bad_yolo_lines_are_named(tmp_path: Path, text: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{text}\n")
    with pytest.raises(UsageError, match="line 2 is no box"):
        read(tmp_path)


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "bad.txt").write_text("{")
    for name in ("nothing", "empty", "bad.json", "bad.txt"):
        with pytest.raises(UsageError):
            read(tmp_path / name)


def test_classes_are_found_by_name_by_number_or_by_order() -> None:
    assert class_numbers(["Egyptian_Cat"], ["background", "tabby", "Egyptian cat, Mau"], 3) == {"Egyptian_Cat": 2}
    assert class_numbers(["0", "12"], (), 20) == {"0": 0, "12": 12}
    assert class_numbers(["b", "a"], (), 2) == {"a": 0, "b": 1}
    with pytest.raises(UsageError, match="not known which is which"):
        class_numbers(["a", "b"], (), 1001)
    with pytest.raises(UsageError, match="'c' is none of the 2 labels"):
        class_numbers(["c"], ["a", "b"], 2)
    with pytest.raises(UsageError, match="2 labels and the model has 3"):
        class_numbers(["a"], ["a", "b"], 3)
