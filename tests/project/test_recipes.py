"""Recipes: the shipped ones say what Keras does, and a wrong one is refused by field."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphcut import recipes
from graphcut.errors import UsageError
from graphcut.records import Preprocessing

MINIMAL = 'source = "keras"\napplication = "ResNet50"\ninput_shape = [32, 32, 3]\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_reference_models_have_recipes() -> None:
    assert recipes.names() == (
        "densenet121",
        "efficientnetb0",
        "inceptionv3",
        "mobilenetv2",
        "resnet101",
        "resnet50",
    )


def test_the_reference_job_is_the_published_model() -> None:
    recipe = recipes.find("resnet101")
    assert (recipe.source, recipe.application, recipe.input_shape) == ("keras", "ResNet101", (224, 224, 3))
    assert (recipe.seed, recipe.opset, recipe.untrained) == (0, 17, True)


@pytest.mark.parametrize("name", recipes.names())
def test_every_shipped_recipe_reads_and_is_named_after_its_model(name: str) -> None:
    recipe = recipes.find(name)
    assert recipe.name == name == recipe.application.lower()
    assert len(recipe.preprocessing.mean) in (1, recipe.input_shape[2])
    assert len(recipe.preprocessing.std) in (1, recipe.input_shape[2])


# What keras.applications' preprocess_input makes of an RGB pixel (10, 100, 250), by its source.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet101", [250 - 103.939, 100 - 116.779, 10 - 123.68]),
        ("resnet50", [250 - 103.939, 100 - 116.779, 10 - 123.68]),
        ("mobilenetv2", [10 / 127.5 - 1, 100 / 127.5 - 1, 250 / 127.5 - 1]),
        ("inceptionv3", [10 / 127.5 - 1, 100 / 127.5 - 1, 250 / 127.5 - 1]),
        ("densenet121", [(10 / 255 - 0.485) / 0.229, (100 / 255 - 0.456) / 0.224, (250 / 255 - 0.406) / 0.225]),
        ("efficientnetb0", [10, 100, 250]),
    ],
)
def test_preprocessing_is_that_of_keras(name: str, expected: list[float]) -> None:
    preprocessing = recipes.find(name).preprocessing
    pixel = np.array([10.0, 100.0, 250.0])
    ordered = pixel[::-1] if preprocessing.colour == "bgr" else pixel
    assert np.allclose((ordered - preprocessing.mean) / preprocessing.std, expected, rtol=1e-6)


def test_an_unknown_name_lists_close_ones_and_all() -> None:
    with pytest.raises(UsageError) as caught:
        recipes.find("ResNet102")
    message = str(caught.value)
    assert "'ResNet102'" in message
    assert "did you mean resnet101" in message
    assert all(name in message for name in recipes.names())
    assert "\n" not in message


@pytest.mark.parametrize("name", ["", "..", "../models/resnet101", "resnet101/"])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(UsageError, match="unknown recipe"):
        recipes.find(name)


def test_a_file_elsewhere_is_a_recipe_too(tmp_path: Path) -> None:
    recipe = recipes.find(str(written(tmp_path, MINIMAL)))
    assert recipe.name == "mine"
    assert (recipe.seed, recipe.opset, recipe.weights) == (0, 17, None)
    assert recipe.preprocessing == Preprocessing()


def test_weights_lie_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "trained.h5").write_bytes(b"weights")
    recipe = recipes.find(str(written(tmp_path, MINIMAL + 'weights = "trained.h5"\n')))
    assert recipe.weights == tmp_path / "trained.h5"
    assert not recipe.untrained


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MINIMAL + "sed = 1", "unknown field sed: did you mean seed?"),
        (MINIMAL + "[preprocessing]\ncolor = 'bgr'", "did you mean preprocessing.colour?"),
        (MINIMAL + "[preprocessing]\ncolour = 'grey'", "preprocessing.colour is 'grey'"),
        (MINIMAL + "[preprocessing]\nstd = [0.0]", "preprocessing.std contains 0.0"),
        (MINIMAL + "[preprocessing]\nstd = [nan]", "preprocessing.std is [nan]"),
        (MINIMAL + "[preprocessing]\nmean = [1, 2]", "one number or three"),
        (MINIMAL + "[preprocessing]\nmean = 1", "one number or three"),
        (MINIMAL + "preprocessing = 1", "must be a table"),
        (MINIMAL + "seed = -1", "seed is -1: it must be an integer from 0"),
        (MINIMAL + "seed = true", "seed is True"),
        (MINIMAL + "seed = 1.5", "seed is 1.5"),
        (MINIMAL + "opset = 9", "opset is 9: it must be an integer from 13 to 18"),
        (MINIMAL + 'weights = "missing.h5"', "do not exist"),
        (MINIMAL + "weights = 3", "weights is 3"),
        (MINIMAL.replace("keras", "torch"), "unknown source 'torch'"),
        (MINIMAL.replace("ResNet50", "os.remove"), "'os.remove' is not a name"),
        (MINIMAL.replace('application = "ResNet50"', ""), "application is missing"),
        (MINIMAL.replace("[32, 32, 3]", "[32, 32]"), "input_shape is [32, 32]"),
        (MINIMAL.replace("[32, 32, 3]", "[32, 0, 3]"), "input_shape is [32, 0, 3]"),
        (MINIMAL.replace("[32, 32, 3]", "224"), "input_shape is 224"),
        ("this is not toml", "not a TOML file"),
    ],
)
def test_a_wrong_recipe_is_refused_by_field(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        recipes.find(str(path))
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_text_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not a TOML file"):
        recipes.find(str(path))
    with pytest.raises(UsageError, match="does not exist"):
        recipes.find(str(tmp_path / "none.toml"))


@given(st.text(alphabet=st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), max_size=20))
def test_any_name_is_found_or_refused_in_one_line(name: str) -> None:
    if name in recipes.names():
        return
    with pytest.raises(UsageError) as caught:
        recipes.find(name)
    assert repr(name)[1:-1] in str(caught.value) or name.endswith(".toml")
