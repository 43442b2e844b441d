"""Pictures for an evaluation, and their ground truth.

DATA is one of:

1. A folder with a subfolder of pictures for each class.
2. A CSV file with the columns ``file`` and ``label`` (a header line is allowed; paths are relative to the CSV file).
3. A COCO annotation file (``.json``); the pictures are in ``pictures`` or next to the file.
4. A folder of pictures with YOLO text labels: ``a.txt`` next to ``a.jpg``, or ``labels/a.txt`` for ``images/a.jpg``. A
   line is ``class x y width height``: the centre and size of a box, as fractions.
5. A folder of pictures with masks in ``masks``: a PNG file of the same stem whose pixels are class numbers (255:
   ignored).
6. A folder of pictures without ground truth: int8 is compared with float only.

A path in a file must not point outside its folder.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from graphcut.errors import CalibrationError, UsageError, setting
from graphcut.evaluation.boxes import Boxes
from graphcut.regular_file import text_of
from graphcut.samples import SUFFIXES, pictures_in

MOST_BYTES = 2**30
"""Of an annotation file: those of COCO's 118,000 training pictures have half of that."""
_WAYS = "pass a folder of pictures, a folder with a subfolder for each class, a CSV file, or a COCO JSON file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Pictures, and what is known about them; of ``labels``, ``boxes`` and ``masks`` at most one is given.

    Attributes:
        name: of the data, for people.
        files, names: each picture, and its name for people.
        labels: the class of each picture, by name.
        boxes: the boxes in each picture; classes are positions in ``categories``.
        crowds: for each box whether it marks a crowd, which counts neither as a miss nor as a false positive.
        categories: names of the classes of boxes, in the order of their numbers; empty where only numbers are known.
        masks: a mask for each picture.
    """

    name: str
    files: tuple[Path, ...]
    names: tuple[str, ...]
    labels: tuple[str, ...] = ()
    boxes: tuple[Boxes, ...] = ()
    crowds: tuple[tuple[bool, ...], ...] = ()
    categories: tuple[str, ...] = ()
    masks: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    def first(self, count: int | None) -> Labelled:
        """Return at most ``count`` pictures, evenly spaced."""
        if count is None or count >= len(self):
            return self
        at = [index * len(self) // count for index in range(count)]

        def chosen(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(values[index] for index in at) if values else ()

        return replace(
            self,
            files=chosen(self.files),
            names=chosen(self.names),
            labels=chosen(self.labels),
            boxes=chosen(self.boxes),
            crowds=chosen(self.crowds),
            masks=chosen(self.masks),
        )


def read(data: Path, pictures: Path | None = None) -> Labelled:
    """Read DATA in any of its forms (statements 1 to 6).

    Args:
        data: a folder, a CSV file or a COCO JSON file.
        pictures: the folder with the pictures of a CSV or JSON file; None for that of the file.

    Raises:
        UsageError: there are no pictures, a file is damaged, or a path leads out of its folder.
    """
    if not data.exists():
        raise UsageError(f"there is no data at {data}", _WAYS)
    if data.is_dir():
        if pictures is not None:
            raise UsageError(
                f"{data} is a folder of pictures, so {setting('pictures')} has no effect",
                f"omit {setting('pictures')}",
            )
        return _from_folder(data)
    if not data.is_file():
        raise UsageError(f"{data} is neither a file nor a folder", _WAYS)
    readers = {".csv": _from_csv, ".json": _from_coco}
    if data.suffix.lower() not in readers:
        raise UsageError(f"{data} is neither a CSV nor a JSON file", _WAYS)
    if data.stat().st_size > MOST_BYTES:
        raise UsageError(f"{data} has more than 1 GiB", "pass fewer annotations")
    root = pictures or data.parent
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}", "pass the folder of the pictures")
    try:
        return readers[data.suffix.lower()](data, root)
    except UnicodeDecodeError as error:
        raise UsageError(f"{data} is not UTF-8 text", "save it as UTF-8") from error
    except OSError as error:
        raise UsageError(f"{data} cannot be read ({error.strerror or error})", "check its permissions") from error


def class_numbers(names: Sequence[str], labels: Sequence[str], count: int) -> dict[str, int]:
    """Map each class name in the data to a class of the model.

    Args:
        names: of classes, in the data.
        labels: of the model's classes, by number; empty if unknown. A label may hold synonyms, separated by
            commas.
        count: classes that the model has.

    Raises:
        UsageError: the mapping is unknown, or a name matches no class.
    """
    if labels:
        if len(labels) != count:
            raise UsageError(
                f"there are {len(labels)} labels and the model has {count} classes",
                f"pass the right {setting('labels')}",
            )
        known: dict[str, int] = {}
        for number, label in enumerate(labels):
            for synonym in (label, *label.split(",")):
                known.setdefault(_plain(synonym), number)
        missing = sorted(name for name in names if _plain(name) not in known)
        if missing:
            raise UsageError(
                f"{missing[0]!r} is none of the {count} labels", "name classes in the data as the labels file does"
            )
        return {name: known[_plain(name)] for name in names}
    if all(name.isdecimal() and int(name) < count for name in names):
        return {name: int(name) for name in names}
    if len(set(names)) == count:
        return {name: number for number, name in enumerate(sorted(set(names)))}
    raise UsageError(
        f"the data names {len(set(names))} classes and the model has {count}, so it is not known which is which",
        f"give {setting('labels')}: a file with the name of each class on a line",
    )


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()


# --- folders ---


def _from_folder(data: Path) -> Labelled:
    masks, images = data / "masks", data / "images"
    if images.is_dir():
        return _described(data, images, _pictures_of(images))
    if masks.is_dir():
        found = [file for file in _pictures_of(data) if not file.is_relative_to(masks)]
        return _described(data, data, found)
    folders = [each for each in sorted(data.iterdir()) if each.is_dir() and not each.name.startswith(".")]
    direct = [each for each in sorted(data.iterdir()) if each.is_file() and each.suffix.lower() in SUFFIXES]
    if folders and not direct:
        files = [(file.relative_to(data).parts[0], file) for file in _pictures_of(data)]
        return Labelled(
            name=data.resolve().name,
            files=tuple(file for _, file in files),
            names=tuple(file.relative_to(data).as_posix() for _, file in files),
            labels=tuple(label for label, _ in files),
        )
    return _described(data, data, _pictures_of(data))


def _pictures_of(folder: Path) -> list[Path]:
    try:
        return pictures_in(folder)
    except CalibrationError as error:
        raise UsageError(error.message, _WAYS) from error


def _described(data: Path, images: Path, files: Sequence[Path]) -> Labelled:
    """Add YOLO labels or masks if they exist."""
    names = tuple(file.relative_to(images).as_posix() for file in files)
    plain = Labelled(name=data.resolve().name, files=tuple(files), names=names)
    masks = [(data / "masks" / name).with_suffix(".png") for name in names]
    if (data / "masks").is_dir():
        missing = next((mask for mask in masks if not mask.is_file()), None)
        if missing is not None:
            raise UsageError(f"there is no mask {missing}", "give a mask for every picture")
        return replace(plain, masks=tuple(masks))
    labels = [_yolo_file(data, images, file) for file in files]
    if any(label.is_file() for label in labels):
        boxes = tuple(_yolo_boxes(label) if label.is_file() else _boxes([]) for label in labels)
        crowds = tuple((False,) * len(each) for each in boxes)
        return replace(plain, boxes=boxes, crowds=crowds)
    return plain


def _yolo_file(data: Path, images: Path, file: Path) -> Path:
    apart = data / "labels" / file.relative_to(images).with_suffix(".txt")
    return apart if (data / "labels").is_dir() else file.with_suffix(".txt")


def _yolo_boxes(path: Path) -> Boxes:
    rows: list[tuple[int, float, float, float, float]] = []
    try:
        lines = text_of(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as YOLO labels", "give UTF-8 text") from error
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        try:
            (label, x, y, width, height) = (int(words[0]), *map(float, words[1:]))
        except (ValueError, TypeError) as error:
            raise UsageError(f"{path}, line {number} is no box", "write `class x y width height`") from error
        if not 0 <= label < 100_000 or not all(math.isfinite(value) for value in (x, y, width, height)):
            raise UsageError(f"{path}, line {number} is no box", "write `class x y width height` as fractions")
        rows.append((label, x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    return _boxes(rows)


def _boxes(rows: Sequence[tuple[int, float, float, float, float]]) -> Boxes:
    return Boxes(
        corners=np.array([row[1:] for row in rows], np.float32).reshape(-1, 4),
        scores=np.ones(len(rows), np.float32),
        classes=np.array([row[0] for row in rows], np.int64),
    )


# --- files ---


def _inside(root: Path, name: str, source: Path) -> Path:
    """Return the path of a picture that a file names.

    Raises:
        UsageError: it leads out of the folder, or does not exist.
    """
    path = root / name
    try:
        inside = "\0" not in name and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))
        there = inside and path.is_file()
    except OSError:
        there, inside = False, True
    if not inside:
        raise UsageError(f"{source} names {name[:200]!r}, which is outside of {root}", "move the picture inside")
    if not there:
        raise UsageError(
            f"{source} names {name[:200]!r}, which is not in {root}",
            f"pass the folder of the pictures ({setting('pictures')})",
        )
    return path


def _from_csv(path: Path, root: Path) -> Labelled:
    try:
        rows = [row for row in csv.reader(StringIO(text_of(path, "utf-8-sig"))) if any(cell.strip() for cell in row)]
    except (csv.Error, OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a CSV file ({error})", "write `file,label` on each line") from error
    if rows and [cell.strip().lower() for cell in rows[0][:2]] == ["file", "label"]:
        rows = rows[1:]
    if not rows:
        raise UsageError(f"{path} lists no pictures", "write `file,label` on each line")
    short = next((number for number, row in enumerate(rows, 1) if len(row) < 2), None)
    if short is not None:
        raise UsageError(f"{path}, row {short} has no label", "write `file,label` on each line")
    return Labelled(
        name=path.name,
        files=tuple(_inside(root, row[0].strip(), path) for row in rows),
        names=tuple(row[0].strip() for row in rows),
        labels=tuple(row[1].strip() for row in rows),
    )


def _from_coco(path: Path, root: Path) -> Labelled:
    way_out = "pass a COCO annotation file (images, annotations, categories)"
    try:
        document = json.loads(text_of(path))
        categories = sorted((int(each["id"]), str(each["name"])) for each in document["categories"])
        images = [_coco_image(each) for each in document["images"]]
        position = {number: at for at, (number, _) in enumerate(categories)}
        found: dict[int, list[tuple[int, float, float, float, float]]] = {image[0]: [] for image in images}
        crowds: dict[int, list[bool]] = {image[0]: [] for image in images}
        sizes = {image[0]: image[2:] for image in images}
        for each in document["annotations"]:
            number = int(each["image_id"])
            width, height = sizes[number]
            left, top, wide, high = (float(value) for value in each["bbox"])
            if not all(math.isfinite(value) for value in (left, top, wide, high)):
                raise ValueError("a box is not finite")
            corners = (left / width, top / height, (left + wide) / width, (top + high) / height)
            found[number].append((position[int(each["category_id"])], *corners))
            crowds[number].append(bool(each.get("iscrowd", 0)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UsageError(f"{path} is not a COCO annotation file ({type(error).__name__}: {reason})", way_out) from error
    if not images or not categories:
        raise UsageError(f"{path} contains no {'categories' if images else 'images'}", way_out)
    return Labelled(
        name=path.name,
        files=tuple(_inside(root, image[1], path) for image in images),
        names=tuple(image[1] for image in images),
        boxes=tuple(_boxes(found[image[0]]) for image in images),
        crowds=tuple(tuple(crowds[image[0]]) for image in images),
        categories=tuple(name for _, name in categories),
    )


def _coco_image(image: Mapping[str, Any]) -> tuple[int, str, int, int]:
    width, height = int(image["width"]), int(image["height"])
    if width < 1 or height < 1:
        raise ValueError(f"an image of {width} x {height}")
    return int(image["id"]), str(image["file_name"]), width, height
