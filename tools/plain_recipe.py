"""The baseline of ``make bench``: split ResNet101 with one TFLiteConverter run for each artifact.

For each of the 7 segments and the 5 tails of k = 2..6 (reference cuts): per-tensor weights, the old quantiser,
int8 input and output, 8 samples. Calibration uses the activations at the input of the sub-model, computed by a Keras
model of the preceding layers.
Needs the keras extra. The time includes conversion and calibration, but not building the model.

Usage: python tools/plain_recipe.py [--samples N] [--log FILE]; prints one JSON object::

    {"seconds": 121.0, "peak_bytes": 6000000000, "artifacts": [{"name": "seg1", "bytes": 6315720, "seconds": 9.9}, ...]}
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

CUTS = (
    "conv4_block4_out",
    "conv4_block10_out",
    "conv4_block16_out",
    "conv4_block22_out",
    "conv5_block1_out",
    "conv5_block2_out",
)
INPUT_SHAPE = (224, 224, 3)


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert everything and print the figures."""
    parser = argparse.ArgumentParser(description="Split ResNet101 with one TFLiteConverter run for each artifact.")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="where TensorFlow's messages go")
    options = parser.parse_args(arguments)
    with quiet(options.log):
        figures = split(options.samples)
    json.dump(figures, sys.stdout, indent=2)
    print()
    return 0


@contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Redirect the output of this process and its libraries to the log, including output from C++."""
    kept = os.dup(1), os.dup(2)
    sys.stdout.flush()
    sys.stderr.flush()
    with log.open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)


def split(samples: int) -> dict[str, Any]:
    """Convert the segments and the tails one after the other; seconds, sizes in bytes, peak memory in bytes."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import keras

    keras.utils.set_random_seed(0)
    model = keras.applications.ResNet101(weights=None, include_top=True, input_shape=INPUT_SHAPE)
    bounds = [model.input, *(model.get_layer(cut).output for cut in CUTS), model.output]
    pictures = [
        np.random.default_rng(seed).standard_normal((1, *INPUT_SHAPE)).astype(np.float32) for seed in range(samples)
    ]
    last = len(bounds) - 1
    jobs = [(f"seg{i + 1}", i, i + 1) for i in range(last)]
    jobs += [(f"tail_k{k}", k - 1, last) for k in range(2, last)]
    started = time.perf_counter()
    artifacts = []
    for name, start, stop in jobs:
        began = time.perf_counter()
        size = len(convert(model.input, bounds[start], bounds[stop], pictures))
        artifacts.append({"name": name, "bytes": size, "seconds": round(time.perf_counter() - began, 3)})
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": round(seconds, 3), "peak_bytes": peak, "samples": samples, "artifacts": artifacts}


def convert(whole_input: Any, start: Any, stop: Any, pictures: Sequence[Any]) -> bytes:
    """Convert the sub-model between two Keras tensors to int8 TFLite, calibrated at its own input."""
    import keras
    import tensorflow as tf

    data = list(pictures)
    if start is not whole_input:
        prefix = keras.Model(whole_input, start)
        data = [prefix(picture, training=False).numpy() for picture in pictures]
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(start, stop))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample] for sample in data)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    converter._experimental_disable_per_channel = True
    converter.experimental_new_quantizer = False
    content: bytes = converter.convert()
    return content


if __name__ == "__main__":
    raise SystemExit(main())
