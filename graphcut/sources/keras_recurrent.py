"""Unroll recurrent Keras layers, so that the export contains no loop.

1. A recurrent layer (LSTM, GRU, SimpleRNN, ConvLSTM, RNN of any cell, alone or inside Bidirectional) is a loop over the
   second dimension of its input. Where that length is known, Keras itself writes the steps in sequence
   (``unroll=True``): the result is a feed-forward graph.
2. A length that is open, or of more than ``MOST_STEPS``, is refused; the error names the layer.

Only a worker calls this: it uses Keras objects without importing Keras.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graphcut.errors import ModelError, setting

MOST_STEPS = 256
"""An LSTM of 256 steps has about 4,000 nodes; planning and conversion grow with them."""


def unroll(model: Any, subject: str) -> list[str]:
    """Unroll every recurrent layer of a Keras model; returns a note for each.

    Args:
        model: built, so that every layer knows its input's shape.
        subject: what to call the model in errors.

    Raises:
        ModelError: a length is open or too large (statement 2).
    """
    notes = []
    for layer, owner in recurrent(model):
        steps = _steps(layer, owner)
        what = f"layer {layer.name!r} ({type(layer).__name__}) is recurrent"
        if steps is None:
            raise ModelError(
                f"{subject}: {what} over an unknown number of steps",
                f"set the length ({setting('input_shapes')}), or save the model with a fixed length and unroll=True",
            )
        if steps > MOST_STEPS:
            raise ModelError(
                f"{subject}: {what} over {steps} steps; the limit is {MOST_STEPS}",
                "shorten the sequence, or split the part of the model before this layer",
            )
        layer.unroll = True
        if hasattr(layer, "_could_use_gpu_kernel"):  # Keras 2: otherwise it calls a function that hides the loop
            layer._could_use_gpu_kernel = False
        notes.append(f"{what}; its {steps} steps were unrolled")
    return notes


def recurrent(model: Any) -> Iterator[tuple[Any, Any]]:
    """The recurrent layers of a model, inside models and wrappers too, each with the layer that is called."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from recurrent(layer)
            continue
        inner = [getattr(layer, name, None) for name in ("forward_layer", "backward_layer", "layer")]
        for each in (layer, *inner):
            if hasattr(each, "unroll") and hasattr(each, "cell"):
                yield each, layer


def _steps(layer: Any, owner: Any) -> int | None:
    """The length of the sequence that a layer reads; None where it is open."""
    shape = (getattr(layer, "_build_shapes_dict", None) or {}).get("sequences_shape")
    if shape is None or shape[1] is None:
        given = getattr(owner, "input", None)
        given = given[0] if isinstance(given, list | tuple) and given else given
        shape = getattr(given, "shape", None)
    if shape is None or len(shape) < 2 or shape[1] is None:
        return None
    return int(shape[1])
