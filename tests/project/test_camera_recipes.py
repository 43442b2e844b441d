"""The configuration in docs/how-to/cameras.md, held against the keys that Frigate documents."""

from __future__ import annotations

from typing import Any

from graphcut.deploy.bundling import _plain
from tests.support.doc_examples import blocks
from tests.support.places import ROOT

PAGE = ROOT / "docs" / "how-to" / "cameras.md"
# docs/docs/configuration/reference.md of blakeblackshear/frigate, and its page on the detector edgetpu.
MODEL = {
    *("path", "labelmap_path", "width", "height", "input_pixel_format", "input_tensor", "model_type", "labelmap"),
    *("attributes_map", "input_dtype"),
}
DETECTOR = {"type", "device"}


def config() -> dict[str, Any]:
    """The block of YAML, which holds nothing but keys, nested by two columns each."""
    (block,) = [block for block in blocks(PAGE) if block.language == "yaml"]
    found: dict[str, Any] = {}
    inside = [found]
    for line in block.lines:
        key, colon, value = line.strip().partition(":")
        assert colon, line
        depth, odd = divmod(len(line) - len(line.lstrip()), 2)
        assert odd == 0, line
        del inside[depth + 1 :]
        inside[-1][key] = value.strip() if value else {}
        if not value:
            inside.append(inside[-1][key])
    return found


def test_frigate_s_keys_are_the_documented_ones() -> None:
    found = config()
    assert set(found) == {"detectors", "model"}
    assert set(found["model"]) <= MODEL
    assert found["model"]["input_tensor"] in ("nhwc", "nchw")
    assert found["model"]["input_pixel_format"] in ("rgb", "bgr", "yuv")
    for detector in found["detectors"].values():
        assert isinstance(detector, dict)
        assert set(detector) <= DETECTOR
        assert detector["type"] == "edgetpu"
        assert detector["device"].partition(":")[0] in ("usb", "pci")


def test_the_files_are_called_as_the_layout_coral_calls_them() -> None:
    stem = _plain("detector.onnx")
    assert str(config()["model"]["path"]).endswith(f"/{stem}_segment_0_of_1_edgetpu.tflite")
    assert f"'{stem}_segment_0_of_2_edgetpu.tflite', '{stem}_segment_1_of_2_edgetpu.tflite'" in PAGE.read_text()
