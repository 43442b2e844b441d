"""Writes the models that the tests of the TensorFlow sources read; run in a process of its own: FOLDER."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import keras

    keras.utils.set_random_seed(0)
    model = small(keras.layers, keras.Model)
    model.save(folder / "small.keras")
    model.save(folder / "small.h5")
    model.save_weights(folder / "small.weights.h5")
    model.export(folder / "small_saved", verbose=False)
    several(keras).save(folder / "several.keras")
    sequence = sequential(keras)
    sequence.save(folder / "sequential.keras")
    sequence.save(folder / "sequential.h5")
    keras.Model(sequence.inputs, sequence.outputs).save(folder / "functional.keras")
    grouped(keras).save(folder / "grouped.keras")
    heavy(keras).save(folder / "heavy.keras")
    unfixed(keras, folder)
    recurrent(keras, folder)
    own_code(keras, folder)
    tflite_files(folder)
    saved_models(folder)
    import tf_keras

    small(tf_keras.layers, tf_keras.Model).save(folder / "keras2.h5")
    sequential(tf_keras).save(folder / "sequential2.h5")
    lines = tf_keras.layers.Input((6, 8), name="lines")
    tf_keras.Model(lines, tf_keras.layers.LSTM(5, name="memory")(lines)).save(folder / "lstm2.h5")


def small(layers: Any, model: Any) -> Any:
    image = layers.Input((32, 32, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = layers.ReLU(name="stem_relu")(x)
    y = layers.DepthwiseConv2D(3, padding="same", name="dw")(x)
    y = layers.Conv2D(8, 1, name="pw")(y)
    x = layers.Add(name="join")([x, y])
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="down")(x)
    x = layers.GlobalAveragePooling2D(name="gap")(x)
    return model(image, layers.Dense(5, activation="softmax", name="head")(x), name="net")


def sequential(keras: Any) -> Any:
    """Layers in a row, some of them in a row of their own, that got their input's shape late."""
    layers = keras.layers
    inner = keras.Sequential([layers.Conv2D(6, 3, activation="relu", name="c1"), layers.Conv2D(8, 3, name="c2")])
    tail = [layers.ReLU(name="r"), layers.GlobalAveragePooling2D(name="gap"), layers.Dense(4, name="head")]
    model = keras.Sequential([inner, *tail])
    model.build((None, 20, 20, 3))
    return model


def recurrent(keras: Any, folder: Path) -> None:
    """Recurrent layers over 6 steps, over an open number, and over more than are unrolled."""
    layers = keras.layers
    cells = [layers.GRUCell(5), layers.GRUCell(4)]
    forms = {
        "lstm": layers.LSTM(5, name="memory"),
        "gru": layers.GRU(5, return_sequences=True, name="memory"),
        "both": layers.Bidirectional(layers.LSTM(5, name="memory"), name="sides"),
        "cells": layers.RNN(cells, name="memory"),
    }
    for name, layer in forms.items():
        lines = keras.Input((6, 8), name="lines")
        keras.Model(lines, layer(lines)).save(folder / f"{name}.keras")
    for name, steps in (("open_lines", None), ("long", 300)):
        lines = keras.Input((steps, 8), name="lines")
        model = keras.Model(lines, layers.LSTM(5, name="memory")(lines))
        model.save(folder / f"{name}.keras")
    model.export(folder / "long_saved", verbose=False)


def several(keras: Any) -> Any:
    """Two inputs, two outputs in another order than that of their names, a layer used twice."""
    layers = keras.layers
    left, right = layers.Input((16, 16, 3), name="right"), layers.Input((16, 16, 3), name="left")
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    both = keras.ops.relu(shared(left) + shared(right))
    return keras.Model([left, right], [layers.Conv2D(2, 1, name="z")(both), layers.Conv2D(3, 1, name="a")(both)])


def grouped(keras: Any) -> Any:
    """What ConvNeXt is made of: constants that are no variables, a grouped convolution (which XLA compiles), GELU."""
    layers = keras.layers
    image = layers.Input((16, 16, 3), name="image")
    x = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0], name="scaled")(image)
    x = layers.Conv2D(8, 3, padding="same", name="stem")(x)
    x = layers.Conv2D(8, 3, padding="same", groups=8, name="grouped")(x)
    x = layers.Activation("gelu", name="gelu")(x)
    return keras.Model(image, layers.Conv2D(2, 1, name="head")(x), name="grouped")


def heavy(keras: Any) -> Any:
    """A dense layer of 18 MiB, one just below the weight at which kernels go past tf2onnx, and a convolution."""
    layers = keras.layers
    image = layers.Input((32, 32, 3), name="image")
    x = layers.Conv2D(9, 3, strides=2, padding="same", activation="relu", name="conv")(image)
    x = layers.Dense(2048, activation="relu", name="large")(layers.Flatten(name="flat")(x))
    return keras.Model(image, layers.Dense(5, name="small")(layers.Dense(2000, name="middle")(x)), name="heavy")


def unfixed(keras: Any, folder: Path) -> None:
    picture = keras.layers.Input((None, None, 3), name="picture")
    features = keras.layers.Conv2D(4, 3, name="conv")(picture)
    keras.Model(picture, keras.layers.GlobalAveragePooling2D(name="pool")(features)).save(folder / "open.keras")


def own_code(keras: Any, folder: Path) -> None:
    layers = keras.layers

    class Plain(layers.Layer):  # type: ignore[misc]  # keras has no types
        def call(self, x: Any) -> Any:
            return x + 1

    def doubled(x: Any) -> Any:
        return x * 2

    for name, layer in (
        ("lambda", layers.Lambda(doubled, name="twice")),
        ("custom", Plain(name="plain")),
        ("function", layers.Activation(doubled, name="act")),
    ):
        model = keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3), layer, layers.Flatten()])
        model.save(folder / f"{name}.keras")
        model.save(folder / f"{name}.h5")


def tflite_files(folder: Path) -> None:
    import numpy as np
    import tensorflow as tf

    def converter() -> Any:
        return tf.lite.TFLiteConverter.from_saved_model(str(folder / "small_saved"))

    made = converter()
    (folder / "float.tflite").write_bytes(made.convert())
    made.optimizations = [tf.lite.Optimize.DEFAULT]
    (folder / "weights.tflite").write_bytes(made.convert())
    rng = np.random.default_rng(0)
    made = converter()
    made.optimizations = [tf.lite.Optimize.DEFAULT]
    made.representative_dataset = lambda: [[rng.random((1, 32, 32, 3), np.float32)] for _ in range(8)]
    (folder / "inside.tflite").write_bytes(made.convert())
    made.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    made.inference_input_type, made.inference_output_type = tf.uint8, tf.int8
    (folder / "whole.tflite").write_bytes(made.convert())


def saved_models(folder: Path) -> None:
    import tensorflow as tf

    spec = tf.TensorSpec((1, 8, 8, 3))

    class Bare(tf.Module):  # type: ignore[misc]  # tensorflow has no types
        @tf.function
        def run(self, x: Any) -> Any:
            return tf.nn.relu(x)

    class Two(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[spec])
        def small(self, x: Any) -> Any:
            return {"out": tf.nn.relu(tf.nn.conv2d(x, tf.ones((3, 3, 3, 4)), 1, "SAME"))}

        @tf.function(input_signature=[spec])
        def large(self, x: Any) -> Any:
            return {"out": tf.nn.relu(tf.nn.conv2d(x, tf.ones((3, 3, 3, 9)), 1, "SAME"))}

    two = Two()
    tf.saved_model.save(two, str(folder / "two"), signatures={"small": two.small, "large": two.large})

    class Writes(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[spec])
        def run(self, x: Any) -> Any:
            tf.io.write_file(str(folder / "written"), "by the model")
            return tf.nn.relu(x)

    class Python(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[spec])
        def run(self, x: Any) -> Any:
            return tf.ensure_shape(tf.numpy_function(lambda v: v, [x], tf.float32), x.shape)

    class Table(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            values = tf.lookup.KeyValueTensorInitializer([1], [2])
            self.table = tf.lookup.StaticHashTable(values, 0)

        @tf.function(input_signature=[spec])
        def run(self, x: Any) -> Any:
            return x + tf.cast(self.table.lookup(tf.constant([1])), tf.float32)

    tf.saved_model.save(Bare(), folder / "bare")
    for name, module in (("writes", Writes()), ("python", Python()), ("table", Table())):
        tf.saved_model.save(module, folder / name, signatures=module.run)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
