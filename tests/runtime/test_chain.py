"""Chain, unsplit model and prefix + tail: the same bytes; seams that do not fit are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphcut.errors import DependencyError, RunError, UsageError
from graphcut.runtime import litert
from graphcut.runtime.chain import Chain, SegmentError
from graphcut.runtime.devices import CPU, Device, parse_device, parse_devices
from graphcut.runtime.interpreter import Edge, Part
from graphcut.runtime.job_folder import read_job
from graphcut.runtime.litert import LiteRtOpener
from graphcut.runtime.wiring import Ends, connect
from tests.support import tiny_split
from tests.support.places import SHARED
from tests.support.tiny_split import branched, images, straight, write_split


def chain_of(folder: Path, **way: object) -> Chain:
    job = read_job(folder, **way)
    return Chain(job.parts, LiteRtOpener(), inputs=job.inputs, outputs=job.outputs)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split(tmp_path_factory.mktemp("split"), straight(4), ["s4"])


def test_chain_unsplit_and_every_prefix_with_its_tail_give_the_same_bytes(split: Path) -> None:
    whole = chain_of(split, unsplit=True)
    ways = [chain_of(split), *(chain_of(split, tail=k) for k in (2, 3, 4))]
    assert [len(way.parts) for way in ways] == [4, 2, 3, 4]
    seen = set()
    for image in images(5):
        wanted = whole.run(image)[0].tobytes()
        seen.add(wanted)
        assert [way.run(image)[0].tobytes() for way in ways] == [wanted] * 4
    assert len(seen) == 5, "the outputs must depend on the input for this to prove anything"


def test_several_inputs_and_outputs_and_tensors_that_skip_segments(tmp_path: Path) -> None:
    folder = write_split(tmp_path, branched(), ["early", "late"], ["left", "right"])
    whole, chain, pair = chain_of(folder, unsplit=True), chain_of(folder), chain_of(folder, tail=3)
    assert [edge.name for edge in chain.inputs] == ["left", "right"]
    assert [edge.name for edge in chain.outputs] == ["early", "late"]
    assert chain.flow.alive[0] == {"a", "skip", "right"}
    assert chain.flow.alive[1] == {"b", "skip", "early"}
    assert chain.flow.handed_bytes == (512, 768, 768)
    left, right = images(2)
    wanted = [array.tobytes() for array in whole.run({"left": left, "right": right})]
    assert wanted[0] != wanted[1]
    assert [array.tobytes() for array in chain.run([left, right])] == wanted
    assert [array.tobytes() for array in pair.run({"right": right, "left": left})] == wanted


def test_without_a_manifest_the_files_are_enough(tmp_path: Path) -> None:
    folder = write_split(tmp_path, straight(3), ["s3"], meta=False)
    with chain_of(folder) as chain:
        assert [edge.name for edge in chain.outputs] == ["s3"]
        assert chain.run(images(1)[0])[0].shape == (1, 8, 8, 4)


def test_floats_are_quantised_by_the_inputs_scale(split: Path) -> None:
    chain = chain_of(split)
    image = images(1)[0]
    as_float = tiny_split.SCALE * (image.astype(np.float32) - tiny_split.ZERO)
    assert chain.run(as_float)[0].tobytes() == chain.run(image)[0].tobytes()
    assert chain.run(as_float[0])[0].tobytes() == chain.run(image)[0].tobytes(), "the batch axis may be left out"


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (np.zeros((1, 4, 8, 8), np.int8), "pass 1x8x8x4 (channels last)"),
        (np.zeros((1, 8, 8, 3), np.int8), "has shape 1x8x8x3: pass 1x8x8x4"),
        (np.zeros((1, 8, 8, 4), np.int16), "dtype int16: pass int8"),
        (np.full((1, 8, 8, 4), np.nan, np.float32), "NaN or infinity"),
        ([1, 2], "2 inputs were given"),
        ("picture.jpg", "is a str, not a numpy array"),
        ({"picture": np.zeros((1, 8, 8, 4), np.int8)}, "input image is missing"),
        ({"image": np.zeros((1, 8, 8, 4), np.int8), "more": 1}, "unknown input more"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(split: Path, inputs: object, words: str) -> None:
    with pytest.raises(RunError) as caught:
        chain_of(split).run(inputs)
    assert words in str(caught.value)


def test_seams_that_differ_are_refused_by_name(tmp_path: Path) -> None:
    first = tiny_split.segment([tiny_split.conv("image", "s1")], ["image"], ["s1"])
    for changed, word in (({"scale": 0.0501}, "scale 0.0500999987"), ({"shape": (1, 4, 4, 4)}, "int8 1x4x4x4")):
        second = tiny_split.segment([tiny_split.conv("s1", "s2")], ["s1"], ["s2"], **changed)
        parts = [Part("segment 1", tmp_path / "1"), Part("segment 2", tmp_path / "2")]
        for part, data in zip(parts, (first, second), strict=True):
            part.path.write_bytes(data)
        with pytest.raises(RunError) as caught:
            Chain(parts, LiteRtOpener())
        assert "segment 1 produces s1 as" in str(caught.value)
        assert word in str(caught.value)


def edge(name: str) -> Edge:
    return Edge(name, (1, 2), "int8", 0.1, 0)


def ends(label: str, reads: str, makes: str) -> Ends:
    return Ends(label, tuple(edge(name) for name in reads.split()), tuple(edge(name) for name in makes.split()))


@pytest.mark.parametrize(
    ("parts", "inputs", "outputs", "words"),
    [
        ([], [], [], "there is no segment"),
        ([ends("one", "x", "a"), ends("three", "b", "c")], [], [], "three reads b, which no part before it produces"),
        ([ends("one", "x", "a"), ends("three", "a b", "c")], ["x"], ["c"], "three reads b, which no part before it"),
        ([ends("one", "x", "a"), ends("two", "a", "a")], [], [], "two produces a, which one already produces"),
        ([ends("one", "x", "a")], [], ["z"], "no part produces the output z"),
    ],
)
def test_parts_that_do_not_connect_are_refused(
    parts: list[Ends], inputs: list[str], outputs: list[str], words: str
) -> None:
    with pytest.raises(RunError) as caught:
        connect(parts, inputs, outputs)
    assert words in str(caught.value)


def test_a_second_input_may_enter_late() -> None:
    flow = connect([ends("one", "x", "a"), ends("two", "a y", "b")])
    assert [each.name for each in flow.inputs] == ["x", "y"]
    assert connect(flow.parts, ["y", "x"]).inputs[0].name == "y"


@pytest.mark.parametrize(
    ("way", "words"),
    [({"tail": 9}, "no tail that begins at segment 9: choose tail from 2 to 4"), ({"tail": 1}, "begins at segment 1")],
)
def test_a_way_that_is_not_there(split: Path, way: dict[str, int], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_job(split, **way)
    assert words in str(caught.value)


def test_folders_that_are_no_split(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        read_job(tmp_path / "none")
    with pytest.raises(UsageError, match="contains no segments"):
        read_job(tmp_path)
    with pytest.raises(UsageError, match="no unsplit model"):
        read_job(tmp_path, unsplit=True)
    folder = write_split(tmp_path / "gap", straight(3), ["s3"])
    (folder / "full_split/tflite/seg2_int8.tflite").unlink()
    with pytest.raises(UsageError, match=r"lacks seg2_int8\.tflite"):
        read_job(folder)
    for text, words in (("{", "cannot be read"), ("[]", "not a manifest"), ('{"inputs": [{}]}', "damaged")):
        (folder / "meta.json").write_text(text)
        with pytest.raises(UsageError, match=words):
            read_job(folder, unsplit=True)


def test_a_file_that_is_not_a_model_names_part_and_interpreter(tmp_path: Path) -> None:
    path = tmp_path / "seg1_int8.tflite"
    path.write_bytes(b"no model at all")
    with pytest.raises(RunError, match=r"segment 1 \(seg1_int8.tflite\) is refused by ai-edge-litert"):
        LiteRtOpener()(Part("segment 1", path))
    with pytest.raises(RunError, match="gone does not exist"):
        LiteRtOpener()(Part("segment 1", tmp_path / "gone"))


def test_a_compiled_file_on_a_cpu_is_told_apart() -> None:
    path = SHARED / "edgetpu" / "pairs" / "mobilenet_v1_0.25_128_quant_edgetpu.tflite"
    if not path.is_file():
        pytest.skip("the shared compiled files are not here")
    with pytest.raises(RunError, match="runs on an Edge TPU only"):
        LiteRtOpener()(Part("unsplit", path))
    with pytest.raises(RunError, match="is not compiled, but usb:0 is an Edge TPU"):
        LiteRtOpener()(Part("unsplit", path), parse_device("usb:0"))


def test_compiled_files_are_found_beside_the_others(tmp_path: Path) -> None:
    folder = write_split(tmp_path, straight(2), ["s2"])
    compiled = folder / "full_split" / "tpu" / "seg2_int8_edgetpu.tflite"
    compiled.parent.mkdir()
    compiled.write_bytes(b"")
    assert [part.compiled for part in read_job(folder).parts] == [None, compiled]


def test_a_failing_part_is_named_with_its_input_and_the_chain_goes_on(split: Path) -> None:
    job = read_job(split)
    open_part = LiteRtOpener()
    calls = []
    opened = []

    class Third:
        def __init__(self, part: Part, device: Device) -> None:
            opened.append(part.label)
            self.inner = open_part(part, device)
            self.inputs, self.outputs, self.fails = self.inner.inputs, self.inner.outputs, part.label == "segment 3"

        def __call__(self, arrays: list[np.ndarray]) -> tuple[np.ndarray, ...]:
            if self.fails:
                calls.append(1)
                if len(calls) == 2:
                    raise RuntimeError("the stick was pulled\nmore")
            return self.inner(arrays)

        def close(self) -> None:
            self.inner.close()

    chain = Chain(job.parts, Third)
    good, *_ = images(1)
    wanted = chain.run(good)[0].tobytes()
    with pytest.raises(
        SegmentError, match=r"segment 3 failed on input 1: RuntimeError: the stick was pulled$"
    ) as caught:
        chain.run(good)
    assert (caught.value.label, caught.value.number) == ("segment 3", 1)
    opened.clear()
    assert chain.run(good)[0].tobytes() == wanted
    assert opened == [part.label for part in job.parts], "what shares the device is opened again"
    chain.close()
    with pytest.raises(SegmentError, match="the chain is closed"):
        chain.run(good)


def test_device_names() -> None:
    assert parse_devices("usb:0, pci:1,cpu,CPU") == (
        Device("usb", "usb:0"),
        Device("pci", "pci:1"),
        CPU,
        CPU,
    )
    for text, words in (("", "empty"), ("gpu", "not a device"), ("usb:0,usb:0", "listed twice"), ("usb:x", "not a")):
        with pytest.raises(UsageError, match=words):
            parse_devices(text)


def test_the_interpreter_is_chosen_shown_and_can_be_forced() -> None:
    assert litert.package_named("auto") == litert.PACKAGE
    assert LiteRtOpener(threads=2).describe().startswith("ai-edge-litert ")
    assert LiteRtOpener(threads=2).describe().endswith("xnnpack kernels, 2 threads")
    with pytest.raises(DependencyError, match="there is no interpreter tensorrt"):
        LiteRtOpener("tensorrt")


def test_the_builtin_kernels_can_be_asked_for(split: Path) -> None:
    job = read_job(split)
    chain = Chain(job.parts, LiteRtOpener(kernels="builtin"), outputs=job.outputs)
    assert chain.run(images(1)[0])[0].dtype == np.int8
