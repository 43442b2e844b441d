"""Draw a model's result onto its picture: boxes, a mask, or the best classes."""

from __future__ import annotations

import colorsys
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from graphcut.errors import CalibrationError, UsageError
from graphcut.evaluation.boxes import Boxes
from graphcut.evaluation.heads import Head, Size, boxes_of
from graphcut.evaluation.measure import EvaluateOptions, chosen
from graphcut.evaluation.tasks import BOX_SCORE, MASK_SCORE, label_of, mask_of, probabilities
from graphcut.evaluation.truth import Labelled
from graphcut.records import Array
from graphcut.samples import PICTURE_FORMATS

_TOP = 5
_OPACITY = 0.5
_SHORTEST_TEXT, _TEXT_SHARE = 12, 28
"""Height of letters in pixels, and what part of the picture's shorter side they are otherwise."""


def draw(picture: Path, outputs: Sequence[Array], size: Size, options: EvaluateOptions) -> Image.Image:
    """Draw the result for a picture.

    Args:
        picture: the file, drawn upright and in its own size.
        outputs: of the model for it: float32, batch 1, NHWC where the rank is 4.
        size: of the model's input, height and width in pixels.
        options: task, head, labels and thresholds, as for an evaluation.

    Returns:
        The picture in RGB.

    Raises:
        UsageError: the task does not fit the outputs, or is one that cannot be drawn.
        CalibrationError: the picture cannot be read.
    """
    task, head = chosen(options, Labelled(name=picture.name, files=(picture,), names=(picture.name,)), outputs, size)
    if task not in ("classification", "detection", "segmentation"):
        raise UsageError(f"the outputs of this model ({task}) cannot be drawn", "write them with -o FILE.npz")
    image = _read(picture)
    if head is not None:
        return _with_boxes(image, _boxes(head, outputs, size, options), options.labels)
    if task == "segmentation":
        return _with_mask(image, mask_of(outputs[0], MASK_SCORE if options.score is None else options.score))
    return _with_classes(image, probabilities(outputs[0].reshape(-1)), options.labels)


def draw_png(picture: Path, outputs: Sequence[Array], size: Size, options: EvaluateOptions) -> bytes:
    """Do the same, and return the bytes of a PNG file. The bytes are deterministic."""
    stream = io.BytesIO()
    draw(picture, outputs, size, options).save(stream, format="PNG")
    return stream.getvalue()


def _boxes(head: Head, outputs: Sequence[Array], size: Size, options: EvaluateOptions) -> Boxes:
    score = BOX_SCORE if options.score is None else options.score
    return boxes_of(head, outputs, size, score=score, iou=options.iou)


def _read(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)
            with Image.open(path, formats=PICTURE_FORMATS) as opened:
                return ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise CalibrationError(f"{path} cannot be read as a picture", "pass only pictures") from error


def _with_boxes(image: Image.Image, boxes: Boxes, labels: Sequence[str]) -> Image.Image:
    canvas = ImageDraw.Draw(image)
    font = _font(image)
    line = max(2, min(image.size) // 200)
    scale = np.array([*image.size, *image.size], np.float64)
    for corners, score, number in zip(boxes.corners, boxes.scores, boxes.classes, strict=True):
        left, top, right, bottom = (float(value) for value in np.clip(corners, 0, 1) * scale)
        colour = _colour(int(number))
        canvas.rectangle((left, top, max(right, left), max(bottom, top)), outline=colour, width=line)
        _label(canvas, (left, top), f"{label_of(int(number), labels)} {score:.2f}", font, colour)
    return image


def _with_mask(image: Image.Image, mask: Array) -> Image.Image:
    colours = np.array([(0, 0, 0), *(_colour(number) for number in range(int(mask.max(initial=0))))], np.uint8)
    shown = Image.fromarray(colours[mask]).resize(image.size, Image.Resampling.NEAREST)
    opacity = Image.fromarray((mask > 0).astype(np.uint8) * int(255 * _OPACITY))
    image.paste(shown, (0, 0), opacity.resize(image.size, Image.Resampling.NEAREST))
    return image


def _with_classes(image: Image.Image, chances: Array, labels: Sequence[str]) -> Image.Image:
    canvas, font = ImageDraw.Draw(image), _font(image)
    top = 0.0
    for number in np.argsort(-chances, kind="stable")[:_TOP]:
        text = f"{label_of(int(number), labels)} {chances[number]:.1%}"
        top = _label(canvas, (0, top), text, font, _colour(int(number)), below=True)
    return image


def _label(
    canvas: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    colour: tuple[int, int, int],
    *,
    below: bool = False,
) -> float:
    """Write a label on a filled box, above a point if there is room; return the box's lower edge."""
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    height = bottom - top + 4
    start = at[1] if below or at[1] < height else at[1] - height
    canvas.rectangle((at[0], start, at[0] + right - left + 4, start + height), fill=colour)
    canvas.text((at[0] + 2 - left, start + 2 - top), text, fill=(0, 0, 0), font=font)
    return start + height


def _font(image: Image.Image) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(max(_SHORTEST_TEXT, min(image.size) // _TEXT_SHARE))


def _colour(number: int) -> tuple[int, int, int]:
    """Return a light colour for a class; consecutive classes differ."""
    red, green, blue = colorsys.hls_to_rgb(number * 0.381966 % 1, 0.6, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)
