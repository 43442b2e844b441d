"""The targets for Atheris, called with mutated files."""

from __future__ import annotations

import random

import pytest

from tests.fuzz import mutate, seeds
from tests.fuzz.targets.readers import TARGETS, one

SEEDS = {
    "onnx_message": (seeds.onnx_models, mutate.onnx_model),
    "tflite": (seeds.tflite_models, mutate.tflite_model),
    "recipe": (seeds.recipes, mutate.toml_text),
    "arrays": (seeds.arrays, mutate.archive),
    "keras_config": (lambda: (seeds.KERAS_CONFIG.encode(),), mutate.json_text),
    "torch_program": (seeds.torch_programs, mutate.archive),
}


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_returns_or_raises_a_users_error(name: str) -> None:
    made, change = SEEDS[name]
    one(name, b"")
    one(name, bytes(100))
    for number in range(150):
        rng = random.Random(f"{name} {number}")
        content = rng.choice(made())
        one(name, content if number == 0 else change(rng, content))
        one(name, mutate.octets(rng, content))
