"""The worker's side of :mod:`graphcut.sources.keras`, in TensorFlow, Keras and tf2onnx.

Three calls, each taking the fields of a recipe (a dict, with ``target``, the file to write): :func:`build`,
:func:`convert`, :func:`write`. The model stays in this process between them, so a worker serves one export.

The bytes of the export depend on the recipe and the versions alone: all weights are drawn after one
``keras.utils.set_random_seed``, and :mod:`graphcut.sources.canonicalise` does the rest.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphcut.errors import ModelError, UsageError
from graphcut.sources import keras_heavy
from graphcut.sources.canonicalise import settle_inputs, settle_names, settle_numbers, write_file
from graphcut.workers.garbage import copies_collected

INPUT = "input"

_made: dict[str, Any] = {}


def build(recipe: Mapping[str, Any]) -> None:
    """Build the Keras model, float32, with its weights.

    Raises:
        UsageError: keras.applications has no such model.
        ModelError: the weights do not fit, or the input shape is not possible.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import keras

    keras.utils.set_random_seed(recipe["seed"])
    application = getattr(keras.applications, recipe["application"], None)
    if not callable(application):
        known = sorted(name for name in dir(keras.applications) if name[0].isupper())
        raise UsageError(
            f"recipe {recipe['name']}: keras.applications has no {recipe['application']!r}",
            f"one of {', '.join(known)}",
        )
    try:
        _made["model"] = application(weights=recipe["weights"], input_shape=tuple(recipe["input_shape"]))
    except (ValueError, OSError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"recipe {recipe['name']}: Keras cannot build {recipe['application']}: {reason}") from error


def convert(recipe: Mapping[str, Any]) -> None:
    """Convert the model to ONNX with a batch of 1, NHWC input, inference mode."""
    import tensorflow as tf
    import tf2onnx.convert

    model = _made.pop("model")
    signature = [tf.TensorSpec((1, *recipe["input_shape"]), tf.float32, name=INPUT)]
    output = model.output_names[0]
    heavy = keras_heavy.heavy(model)
    signature += keras_heavy.signature(heavy)

    def whole(pixels: Any, *values: Any) -> dict[str, Any]:
        with keras_heavy.in_place_of(heavy, values):
            return {output: model(pixels, training=False)}

    function = tf.function(whole, input_signature=signature)
    with copies_collected():
        proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=recipe["opset"])
    settle_inputs(proto.graph, (INPUT,), keras_heavy.values(heavy))
    settle_numbers(proto.graph)
    settle_names(proto.graph)
    _made["proto"] = proto


def write(recipe: Mapping[str, Any]) -> None:
    """Write the ONNX file to ``recipe["target"]``.

    Raises:
        ModelError: the model is too large for one file.
        OutputError: the disk is full or the folder not writable.
    """
    write_file(_made.pop("proto"), Path(recipe["target"]), f"recipe {recipe['name']}")
