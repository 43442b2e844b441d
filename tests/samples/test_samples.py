"""Samples from pictures, arrays and noise: what the model gets, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from graphcut.errors import CalibrationError
from graphcut.progress import Event
from graphcut.records import ModelInput, Preprocessing, Samples
from graphcut.samples import load_samples, make_samples
from tests.support.places import SHARED, eight_photographs

HALF = Preprocessing(mean=(127.5,), std=(127.5,))


def nhwc(channels: int = 3, height: int = 6, width: int = 8, name: str = "image") -> ModelInput:
    return ModelInput(
        name=name,
        shape=(1, channels, height, width),
        source_layout="NHWC",
        source_shape=(1, height, width, channels),
    )


def nchw(channels: int = 3, height: int = 6, width: int = 8, name: str = "image") -> ModelInput:
    shape = (1, channels, height, width)
    return ModelInput(name=name, shape=shape, source_layout="NCHW", source_shape=shape)


def only(samples: Samples) -> npt.NDArray[np.float32]:
    (array,) = samples.arrays.values()
    return array


def picture(path: Path, height: int = 6, width: int = 8, mode: str = "RGB", seed: int = 0, **options: Any) -> Path:
    """Save noise as a picture; lossless formats return the same pixels."""
    rng = np.random.default_rng(seed)
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    Image.fromarray(rng.integers(0, 256, shape, np.uint8), mode=None).save(path, **options)
    return path


# --- pictures ---


def test_pictures_come_sorted_prepared_and_nchw(tmp_path: Path) -> None:
    for index, name in enumerate(["b.png", "a.bmp", "c.PNG"]):
        picture(tmp_path / name, seed=index)
    (tmp_path / "labels.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_text("no picture")
    samples = load_samples(tmp_path, (nhwc(),), HALF)
    assert samples.names == ("a.bmp", "b.png", "c.PNG")
    assert samples.origin == f"folder {tmp_path.name}"
    assert not samples.synthetic
    assert len(samples) == 3
    pixels = np.asarray(Image.open(tmp_path / "b.png"), np.float32)
    np.testing.assert_allclose(only(samples)[1], pixels.transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)
    assert only(samples).dtype == np.float32
    assert only(samples).flags.c_contiguous


def test_pictures_are_resized_bicubically_to_the_model(tmp_path: Path) -> None:
    file = picture(tmp_path / "a.png", 50, 40)
    samples = load_samples(tmp_path, (nchw(3, 6, 8),), Preprocessing())
    expected = np.asarray(Image.open(file).resize((8, 6), Image.Resampling.BICUBIC), np.float32)
    np.testing.assert_array_equal(only(samples)[0].transpose(1, 2, 0), expected)


def test_colour_order_and_values_for_each_channel(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6), (10, 20, 30)).save(tmp_path / "a.png")
    caffe = Preprocessing(mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 4.0), colour="bgr")
    samples = load_samples(tmp_path, (nhwc(),), caffe)
    assert only(samples)[0, :, 0, 0].tolist() == [29.0, 9.0, 1.75]


def test_grey_model_and_grey_picture(tmp_path: Path) -> None:
    file = picture(tmp_path / "a.png")
    grey = load_samples(tmp_path, (nhwc(1),), Preprocessing())
    np.testing.assert_array_equal(only(grey)[0, 0], np.asarray(Image.open(file).convert("L"), np.float32))
    picture(file, mode="L")
    rgb = only(load_samples(tmp_path, (nhwc(3),), Preprocessing()))[0]
    np.testing.assert_array_equal(rgb[0], rgb[2])


def test_photographs_stand_upright(tmp_path: Path) -> None:
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[0] = 200
    turned = Image.fromarray(np.rot90(pixels).copy())
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to show
    turned.save(tmp_path / "a.png", exif=exif)
    read = only(load_samples(tmp_path, (nhwc(),), Preprocessing()))[0, 0]
    np.testing.assert_array_equal(read, pixels[:, :, 0])


def test_first_frame_of_a_moving_picture(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 6), value) for value in (40, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.all(only(load_samples(tmp_path, (nhwc(),), Preprocessing())) == 40)


def test_one_picture_file(tmp_path: Path) -> None:
    file = picture(tmp_path / "a.png")
    samples = load_samples(file, (nhwc(),), HALF)
    assert samples.names == ("a.png",)
    assert samples.origin == "a.png"


def test_limit_takes_evenly_spaced_pictures_and_says_so(tmp_path: Path) -> None:
    for index in range(9):
        folder = tmp_path / f"class{index // 3}"
        folder.mkdir(exist_ok=True)
        picture(folder / f"{index}.png", seed=index)
    events: list[Event] = []
    samples = load_samples(tmp_path, (nhwc(),), HALF, limit=3, report=events.append)
    assert samples.names == ("class0/0.png", "class1/3.png", "class2/6.png")
    assert [event.detail for event in events if event.note] == [
        f"{tmp_path.name} has 9 samples; 3 are used, evenly spaced (use \ue000samples\ue001 for more)"
    ]
    assert len(load_samples(tmp_path, (nhwc(),), HALF, limit=20)) == 9


def test_unreadable_pictures_are_named_not_skipped(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    whole = picture(tmp_path / "c.png", 200, 200).read_bytes()
    (tmp_path / "c.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.jpg").write_text("not a picture")
    with pytest.raises(CalibrationError, match=r"picture b\.jpg cannot be read \(not a picture\).*skip_unreadable"):
        load_samples(tmp_path, (nhwc(),), HALF)
    events: list[Event] = []
    samples = load_samples(tmp_path, (nhwc(),), HALF, skip_unreadable=True, report=events.append)
    assert samples.names == ("a.png",)
    notes = [event.detail for event in events if event.note]
    assert len(notes) == 2
    assert "b.jpg" in notes[0]
    assert "c.png" in notes[1]
    (tmp_path / "a.png").unlink()
    with pytest.raises(CalibrationError, match="none of the 2 pictures"):
        load_samples(tmp_path, (nhwc(),), HALF, skip_unreadable=True)


def test_16_bit_pictures_are_not_clipped_silently(tmp_path: Path) -> None:
    Image.fromarray(np.full((6, 8), 40000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(CalibrationError, match="8 bits"):
        load_samples(tmp_path, (nhwc(),), HALF)


def test_unknown_preparation_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(CalibrationError, match=r"set mean and std"):
        load_samples(tmp_path, (nhwc(),), None)


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ((nhwc(4),), "pictures have 1 or 3 channels, but input image is 1x4x6x8"),
        ((nhwc(name="a"), nhwc(name="b")), r"one input; this one has 2: pass an \.npz file with a, b"),
    ],
)
def test_models_pictures_do_not_serve(tmp_path: Path, inputs: tuple[ModelInput, ...], told: str) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(CalibrationError, match=told):
        load_samples(tmp_path, inputs, HALF)


def test_wrong_number_of_means(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(CalibrationError, match="mean has 2 values, but the input has 3 channels"):
        load_samples(tmp_path, (nhwc(),), Preprocessing(mean=(1.0, 2.0)))


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"missing does not exist.*random for synthetic samples"):
        load_samples(tmp_path / "missing", (nhwc(),), HALF)
    with pytest.raises(CalibrationError, match="no pictures in"):
        load_samples(tmp_path, (nhwc(),), HALF)
    with pytest.raises(CalibrationError, match="0 samples were requested"):
        load_samples("random", (nhwc(),), HALF, limit=0)


@pytest.mark.skipif(not (SHARED / "images").is_dir(), reason="the shared photographs are not here")
def test_the_eight_photographs(tmp_path: Path) -> None:
    samples = load_samples(eight_photographs(tmp_path), (nhwc(3, 224, 224),), HALF)
    assert len(samples) == 8
    assert only(samples).shape == (8, 3, 224, 224)
    assert -1 <= only(samples).min() < -0.9
    assert 0.9 < only(samples).max() <= 1


# --- arrays ---


@settings(max_examples=60, deadline=None)
@given(
    channels=st.integers(1, 4),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    count=st.integers(1, 3),
    layout=st.sampled_from(["NCHW", "NHWC"]),
    told=st.booleans(),
)
def test_layout_is_read_from_the_shape(
    tmp_path_factory: pytest.TempPathFactory,
    channels: int,
    height: int,
    width: int,
    count: int,
    layout: str,
    told: bool,
) -> None:
    """Any array in either layout arrives as NCHW; where the shape fits both, the source's layout (or the option)."""
    path = tmp_path_factory.mktemp("arrays") / "x.npy"
    values = np.random.default_rng(1).random((count, channels, height, width), np.float32)
    np.save(path, values if layout == "NCHW" else values.transpose(0, 2, 3, 1))
    make: Callable[..., ModelInput] = nchw if layout == "NCHW" else nhwc
    if told:
        make = nhwc if layout == "NCHW" else nchw
    option: Any = layout if told else "auto"
    samples = load_samples(path, (make(channels, height, width),), None, layout=option)
    np.testing.assert_array_equal(only(samples), values)
    assert samples.names == tuple(f"x.npy[{index}]" for index in range(count))


def test_layout_of_the_recipe_breaks_ties(tmp_path: Path) -> None:
    values = np.random.default_rng(1).random((2, 3, 3, 3), np.float32)
    np.save(tmp_path / "x.npy", values)
    told = Preprocessing(layout="NHWC")
    samples = load_samples(tmp_path / "x.npy", (nchw(3, 3, 3),), told)
    np.testing.assert_array_equal(only(samples), values.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("shape", [(6, 8, 3), (3, 6, 8), (1, 6, 8, 3)])
def test_one_sample_without_batch_axis(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "x.npy", np.ones(shape, np.float32))
    assert only(load_samples(tmp_path / "x.npy", (nhwc(),), None)).shape == (1, 3, 6, 8)


@pytest.mark.parametrize("shape", [(5, 28, 28), (28, 28), (5, 28, 28, 1), (28, 28, 28)])
def test_grey_arrays_need_no_channel_axis(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "x.npy", np.ones(shape, np.float32))
    count = 1 if len(shape) == 2 else shape[0]
    assert only(load_samples(tmp_path / "x.npy", (nchw(1, 28, 28),), None)).shape == (count, 1, 28, 28)


def test_uint8_arrays_are_pixels_and_others_are_values(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    pixels = np.random.default_rng(1).integers(0, 256, (2, 6, 8, 3), np.uint8)
    np.save(path, pixels)
    bgr = Preprocessing(mean=(127.5,), std=(127.5,), colour="bgr")
    samples = load_samples(path, (nhwc(),), bgr)
    np.testing.assert_allclose(only(samples)[:, 2], pixels[..., 0] / 127.5 - 1, atol=1e-6)
    with pytest.raises(CalibrationError, match="mean and std"):
        load_samples(path, (nhwc(),), None)
    np.save(path, pixels.astype(np.int8))
    np.testing.assert_array_equal(only(load_samples(path, (nhwc(),), bgr))[:, 0], pixels.astype(np.int8)[..., 0])


def test_float_arrays_are_not_prepared_and_it_is_said(tmp_path: Path) -> None:
    values = np.random.default_rng(1).random((2, 3, 6, 8))
    np.save(tmp_path / "x.npy", values)
    events: list[Event] = []
    samples = load_samples(tmp_path / "x.npy", (nhwc(),), HALF, report=events.append)
    np.testing.assert_array_equal(only(samples), values.astype(np.float32))
    assert ["used unchanged" in event.detail for event in events if event.note] == [True]


def test_several_inputs_by_name(tmp_path: Path) -> None:
    first, second = (
        nchw(name="left"),
        ModelInput(name="state:0", shape=(1, 7), source_layout="other", source_shape=(1, 7)),
    )
    path = tmp_path / "x.npz"
    arrays = {"left": np.ones((4, 3, 6, 8), np.float32), "state:0": np.zeros((4, 7), np.int64)}
    np.savez(path, **arrays, labels=np.arange(4))
    samples = load_samples(path, (first, second), None, limit=2)
    assert list(samples.arrays) == ["left", "state:0"]
    assert samples.names == ("x.npz[0]", "x.npz[2]")
    assert samples.arrays["state:0"].dtype == np.float32
    with pytest.raises(CalibrationError, match=r"no array for input right; it has left, state:0, labels"):
        load_samples(path, (nchw(name="right"),), None)
    np.savez(path, left=arrays["left"], **{"state:0": np.zeros((3, 7))})
    with pytest.raises(CalibrationError, match=r"different numbers of samples \(left 4, state:0 3\)"):
        load_samples(path, (first, second), None)
    np.save(tmp_path / "x.npy", arrays["left"])
    with pytest.raises(CalibrationError, match="one array, but the model has 2 inputs"):
        load_samples(tmp_path / "x.npy", (first, second), None)


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.ones((2, 6, 8, 4), np.float32), r"array is 2x6x8x4, but the model takes 3x6x8 NCHW or 6x8x3 NHWC"),
        (np.ones((2, 6, 8), np.float32), r"array is 2x6x8, but the model takes"),
        (np.float32(3), r"array is a single number, but"),
        (np.ones((0, 6, 8, 3), np.float32), r"it contains no samples; its shape is 0x6x8x3"),
        (np.array([[["text"] * 3] * 8] * 6), r"not numeric"),
        (np.ones((6, 8, 3), np.complex64), r"complex64 is not numeric"),
        (np.full((6, 8, 3), np.nan, np.float32), r"NaN or infinity in sample 0"),
        (np.stack([np.ones((6, 8, 3)), np.full((6, 8, 3), 1e300)]), r"NaN or infinity in sample 1"),
    ],
)
def test_arrays_that_are_refused(tmp_path: Path, array: npt.NDArray[Any], told: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(CalibrationError, match=told) as caught:
        load_samples(tmp_path / "x.npy", (nhwc(),), None)
    assert "\n" not in str(caught.value)


def test_given_layout_that_does_not_fit(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 6, 8, 3), np.float32))
    with pytest.raises(CalibrationError, match=r"2x6x8x3, but the model takes 3x6x8 NCHW:"):
        load_samples(tmp_path / "x.npy", (nhwc(),), None, layout="NCHW")


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize("content", [b"", b"not numpy", b"\x93NUMPY\x01\x00", b"PK\x03\x04 cut off"])
def test_damaged_array_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CalibrationError, match="cannot be read: truncated, or not a"):
        load_samples(tmp_path / name, (nhwc(),), None)


def test_cut_off_and_pickled_arrays(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.ones((2, 6, 8, 3), np.float32))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(CalibrationError, match="truncated"):
        load_samples(path, (nhwc(),), None)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(CalibrationError, match="cannot be read"):
        load_samples(path, (nhwc(),), None)


# --- synthetic ---


def test_random_is_marked_seeded_and_lies_in_the_range_of_pixels() -> None:
    inputs = (nhwc(3, 32, 24), ModelInput(name="s", shape=(1, 5), source_layout="other", source_shape=(1, 5)))
    samples = load_samples("random", inputs, HALF)
    assert samples.synthetic
    assert len(samples) == 8
    image = samples.arrays["image"]
    assert image.shape == (8, 3, 32, 24)
    assert samples.arrays["s"].shape == (8, 5)
    assert image.min(axis=(1, 2, 3)).tolist() == pytest.approx([-1] * 8, abs=1e-5)
    assert image.max(axis=(1, 2, 3)).tolist() == pytest.approx([1] * 8, abs=1e-5)
    assert load_samples("random", inputs, HALF).sha256 == samples.sha256
    assert load_samples("random", inputs, HALF, seed=1).sha256 != samples.sha256
    assert len(load_samples("random", inputs, HALF, limit=3)) == 3


def test_random_is_smooth_as_pictures_are() -> None:
    image = only(load_samples("random", (nchw(3, 224, 224),), None))
    step = np.abs(np.diff(image, axis=3)).mean()
    assert step < image.std() / 4
    assert -2.001 <= image.min() < -1.9
    assert 1.9 < image.max() <= 2.001


@settings(max_examples=30, deadline=None)
@given(channels=st.integers(1, 5), height=st.integers(1, 70), width=st.integers(1, 70))
def test_random_of_any_size_is_finite(channels: int, height: int, width: int) -> None:
    array = only(load_samples("random", (nchw(channels, height, width),), Preprocessing(), limit=1))
    assert np.isfinite(array).all()
    assert array.min() >= 0
    assert array.max() <= 255.01


def test_hash_depends_on_values_names_and_shapes() -> None:
    ones = np.ones((2, 6), np.float32)
    hashes = {
        make_samples({"a": ones}, "xy", "o", False).sha256,
        make_samples({"b": ones}, "xy", "o", False).sha256,
        make_samples({"a": ones.reshape(2, 3, 2)}, "xy", "o", False).sha256,
        make_samples({"a": 2 * ones}, "xy", "o", False).sha256,
    }
    assert len(hashes) == 4
    assert make_samples({"a": np.asfortranarray(ones)}, "zz", "p", True).sha256 in hashes


def test_headers_of_arrays_that_lie(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 3, 4, 4), np.float32))
    good = (tmp_path / "x.npy").read_bytes()
    for lie in (b"(4, 3, 4, -4)", b"(4, 3, 4, 4 ,", b"(9, 9, 9, 9)"):
        (tmp_path / "x.npy").write_bytes(good.replace(b"(4, 3, 4, 4),", lie.ljust(13)))
        with pytest.raises(CalibrationError, match=r"x\.npy"):
            load_samples(tmp_path / "x.npy", (nchw(3, 4, 4),), None)
