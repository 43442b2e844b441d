"""The worker's side of the sources that TensorFlow reads: Keras files, SavedModels and TFLite files.

Steps of one export, each taking the same argument (a dict; ``path``, ``subject``, ``shapes``, ``opset``, ``target``):
one of :func:`load_keras` and :func:`load_saved_model`, then :func:`convert`, :func:`check` and :func:`write`; or
:func:`convert_tflite` and :func:`write`. Their results stay in this process between the steps.

1. Every input has a static shape: an open batch dimension becomes 1, other open dimensions come from ``shapes``.
2. Inputs and outputs keep their names and their order.
3. Code in the file is not executed (:mod:`graphcut.sources.keras_check`, :mod:`graphcut.sources.saved_model_check`).
4. On a random input, the ONNX model gives the results of TensorFlow within ``TOLERANCE`` times the largest value of
   each output (at least ``LEAST_SCALE``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphcut.errors import ModelError, UsageError, first_line, setting
from graphcut.graph.reference import Reference
from graphcut.records import Shape
from graphcut.runtime.interpreter import AnyArray
from graphcut.runtime.litert import Runner
from graphcut.sources import (
    canonicalise,
    keras_check,
    keras_heavy,
    keras_names,
    keras_recurrent,
    saved_model_check,
    tflite_names,
    tflite_rewrite,
)
from graphcut.sources.library_errors import foreign
from graphcut.workers.garbage import copies_collected

TOLERANCE = 1e-3
"""Folding batch normalisations into convolutions in float32 stays below 1e-5 in the models tried."""

LEAST_SCALE = 1e-3
"""Differences below ``TOLERANCE`` times this (1e-6) are rounding, however small the output is.

Two float32 implementations of a sigmoid differ by up to 5e-8 where its value is 3e-7 (onnxruntime 1.26 and TFLite,
measured on a pose network).
"""

Dimensions = Sequence[int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """A model as a function of tensors in the order of ``inputs`` that returns output name -> tensor.

    ``heavy`` are variables whose values may be passed after the inputs; otherwise the model's own values are used.
    """

    call: Callable[..., Mapping[str, Any]]
    inputs: tuple[tuple[str, Shape, Any], ...]
    outputs: tuple[str, ...]
    heavy: tuple[Any, ...] = ()


_made: dict[str, Any] = {}


def load_keras(argument: Mapping[str, Any]) -> None:
    """Read a ``.keras`` or ``.h5`` file.

    Raises:
        ModelError: it is damaged, or needs code that is not part of Keras.
        UsageError: an input has open dimensions, or ``shapes`` contradicts the file.
    """
    path, subject = Path(argument["path"]), str(argument["subject"])
    config = keras_check.read_config(path, subject)
    keras_check.refuse_code(config, subject)
    _quiet()
    model = _keras_model(path, config, subject)
    _build(model, argument)
    names = _distinct([re.sub(r"[^\w.-]", "_", value.name.split(":")[0]) for value in model.inputs])
    _made["notes"] = []
    model = _of_other_size(model, names, argument)
    _made["notes"] += keras_recurrent.unroll(model, subject)
    fixed = _fixed(subject, dict(zip(names, [tuple(value.shape) for value in model.inputs], strict=True)), argument)
    outputs = _distinct(_output_names(model))

    heavy = keras_heavy.heavy(model)

    def call(*tensors: Any) -> dict[str, Any]:
        import tensorflow as tf

        given, values = list(tensors[: len(names)]), tensors[len(names) :]
        with keras_heavy.in_place_of(heavy, values):
            result = model(given if len(given) > 1 else given[0], training=False)
        return dict(zip(outputs, tf.nest.flatten(result), strict=True))

    types = [_dtype(value.dtype) for value in model.inputs]
    _made["layers"] = keras_names.layers_of(model)
    _made["loaded"] = _Loaded(
        call=call,
        inputs=tuple((name, fixed[name], dtype) for name, dtype in zip(names, types, strict=True)),
        outputs=tuple(outputs),
        heavy=heavy,
    )


def load_saved_model(argument: Mapping[str, Any]) -> None:
    """Read the signature of a SavedModel that the user chose, or its serving signature.

    Raises:
        ModelError: it is damaged, has no signature, or has side effects.
        UsageError: an input has open dimensions, or ``shapes`` contradicts the file.
    """
    path, subject = Path(argument["path"]), str(argument["subject"])
    _quiet()
    import tensorflow as tf

    graph = saved_model_check.read(path, subject)
    chosen = saved_model_check.signature(graph, subject, argument["signature"])
    saved_model_check.refuse(graph, chosen, subject)
    with foreign(subject, "loading it in TensorFlow"):
        _made["keep"] = loaded = tf.saved_model.load(str(path))
    function = loaded.signatures[chosen]
    specs = function.structured_input_signature[1]
    for name, spec in specs.items():
        if spec.shape.rank is None and name not in argument["shapes"]:
            raise UsageError(
                f"{subject}: input {name!r} has no shape", f"set it: {setting('input_shapes', f'{name}:1x224x224x3')}"
            )
    declared = {
        name: tuple(spec.shape) if spec.shape.rank is not None else (None,) * len(argument["shapes"][name])
        for name, spec in specs.items()
    }
    fixed = _fixed(subject, declared, argument)
    _made["loaded"] = _Loaded(
        call=lambda *tensors: function(**dict(zip(specs, tensors, strict=True))),
        inputs=tuple((name, fixed[name], spec.dtype) for name, spec in specs.items()),
        outputs=tuple(function.structured_outputs),
    )


def convert(argument: Mapping[str, Any]) -> None:
    """Convert the loaded model to ONNX."""
    import tensorflow as tf
    import tf2onnx.convert

    model: _Loaded = _made["loaded"]
    signature = [tf.TensorSpec(shape, dtype, name=name) for name, shape, dtype in model.inputs]
    signature += keras_heavy.signature(model.heavy)
    with foreign(argument["subject"], "tf2onnx"), _calls_written_out(), copies_collected():
        function = tf.function(model.call, input_signature=signature)
        proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=argument["opset"])
        captured = function.get_concrete_function().graph.captures
    canonicalise.settle_erfc(proto.graph)
    _refuse_foreign_operators(proto, argument["subject"])
    _refuse_loops(proto, argument["subject"])
    constants = {
        place.name: value.numpy() for value, place in captured if value.dtype == tf.float32 and hasattr(value, "numpy")
    }
    constants |= keras_heavy.values(model.heavy)
    canonicalise.settle_inputs(proto.graph, [name for name, _, _ in model.inputs], constants)
    canonicalise.settle_outputs(proto.graph, model.outputs)
    canonicalise.settle_numbers(proto.graph)
    if "layers" in _made:
        keras_names.settle(proto.graph, _made["layers"])
    canonicalise.settle_names(proto.graph)
    _made["proto"] = proto


@contextmanager
def _calls_written_out() -> Iterator[None]:
    """Trace functions that a layer calls into the graph itself.

    Keras puts a grouped convolution into a function that XLA compiles (ConvNeXt, RegNet). TensorFlow does not inline
    such functions, and ONNX has no counterpart of the call.
    """
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def check(argument: Mapping[str, Any]) -> float:
    """Compare the ONNX model with TensorFlow on a random input (statement 4).

    Returns:
        The largest difference relative to the largest value of that output.

    Raises:
        ModelError: the results differ.
    """
    import tensorflow as tf

    model: _Loaded = _made["loaded"]
    subject = argument["subject"]
    rng = np.random.default_rng(0)
    inputs = {
        name: rng.standard_normal(shape).astype(dtype.as_numpy_dtype)
        if dtype.is_floating
        else rng.integers(0, 2, shape).astype(dtype.as_numpy_dtype)
        for name, shape, dtype in model.inputs
    }
    with foreign(subject, "running it in TensorFlow"):
        wanted = {
            name: np.asarray(value)
            for name, value in model.call(*(tf.constant(values) for values in inputs.values())).items()
        }
    return _compare(inputs, wanted, argument)


def convert_tflite(argument: Mapping[str, Any]) -> None:
    """Convert a TFLite file to a float ONNX model; it was checked before (:mod:`graphcut.sources.tflite_check`)."""
    _quiet()
    import tensorflow as tf
    from tf2onnx import optimizer
    from tf2onnx.tfonnx import process_tf_graph

    path, subject = Path(argument["path"]), str(argument["subject"])
    if argument["rewritten"]:
        path = Path(argument["target"]).with_suffix(".tflite")
        tflite_rewrite.rewrite(Path(argument["path"]), subject, path, argument["shapes"], argument["inputs"])
    _made["converted"] = path
    with foreign(subject, "tf2onnx"), tf.Graph().as_default(), copies_collected():
        graph = process_tf_graph(None, opset=argument["opset"], tflite_path=str(path), dequantize=argument["quantised"])
        proto = optimizer.optimize_graph(graph).make_model("graphcut")
    _refuse_foreign_operators(proto, subject)
    tflite_names.settle(proto.graph, argument["inputs"], argument["outputs"])
    canonicalise.settle_numbers(proto.graph)
    canonicalise.settle_names(proto.graph)
    _made["proto"] = proto


def check_tflite(argument: Mapping[str, Any]) -> float:
    """Compare the ONNX model with the TFLite file on a random input (statement 4).

    The outputs of a quantised file are coarse, so only their shapes and that they are finite are checked.

    Returns:
        The largest difference relative to the largest value of that output.

    Raises:
        ModelError: the results differ.
    """
    subject = argument["subject"]
    with foreign(subject, "running it"):
        runner = _runner(argument)
        rng = np.random.default_rng(0)
        given = [random_like(rng, detail) for detail in runner.inputs]
        made = runner(given)
    proto = _made["proto"]
    names = [value.name for value in proto.graph.input], [value.name for value in proto.graph.output]
    inputs = {name: real(values, detail) for name, values, detail in zip(names[0], given, runner.inputs, strict=True)}
    wanted = {name: real(values, detail) for name, values, detail in zip(names[1], made, runner.outputs, strict=True)}
    return _compare(inputs, wanted, argument, exact=not argument["quantised"])


def _runner(argument: Mapping[str, Any]) -> Runner:
    """The original file; the rewritten form where it has another size or the original does not run.

    The interpreter's kernels do not support every sparse weight.
    """
    converted = Path(_made["converted"])
    if not argument["shapes"]:
        try:
            return Runner(Path(argument["path"]), kernels="builtin")
        except (ValueError, RuntimeError):
            if not argument["rewritten"]:
                raise
    return Runner(converted, kernels="builtin")


def write(argument: Mapping[str, Any]) -> None:
    """Write the ONNX file to ``target``.

    Raises:
        ModelError: the model is too large for one file.
        OutputError: the disk is full or the folder is not writable.
    """
    proto = _made.pop("proto")
    canonicalise.keep_notes(proto, _made.get("notes", ()))
    canonicalise.write_file(proto, Path(argument["target"]), argument["subject"])


def _compare(
    inputs: Mapping[str, Any], wanted: Mapping[str, Any], argument: Mapping[str, Any], *, exact: bool = True
) -> float:
    """Run the ONNX model and compare the results; returns the largest relative difference."""
    part, subject = Path(argument["target"]), argument["subject"]
    canonicalise.write_file(_made["proto"], part, subject)
    got = Reference(part).run(inputs)
    worst = 0.0
    for name, values in wanted.items():
        if name not in got or got[name].shape != values.shape:
            raise ModelError(
                f"{subject}: tf2onnx lost output {name!r} or its shape",
                "export the model to ONNX in Python, and pass the ONNX file",
            )
        scale = max(float(np.abs(values).max(initial=0.0)), LEAST_SCALE)
        error = float(np.abs(got[name] - values).max(initial=0.0)) / scale
        worst = max(worst, error)
        if not error <= (TOLERANCE if exact else np.finfo(np.float32).max):
            raise ModelError(
                f"{subject}: after tf2onnx, output {name!r} differs by {error:.1e} of its largest value",
                "remove random or numerically unstable layers from the model",
            )
    return worst


def random_like(rng: np.random.Generator, detail: Mapping[str, Any]) -> AnyArray:
    """A random input for a TFLite file: integers of the full range, or normal noise."""
    shape, dtype = tuple(int(size) for size in detail["shape"]), np.dtype(detail["dtype"])
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return rng.standard_normal(shape).astype(dtype)


def real(values: AnyArray, detail: Mapping[str, Any]) -> AnyArray:
    """The real numbers that the integers of an input or output of a TFLite file represent."""
    scale, zero_point = detail["quantization"]
    return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale) if scale else values


def _quiet() -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"


def _keras_model(path: Path, config: Mapping[str, Any], subject: str) -> Any:
    """The model, read by Keras 3, or by Keras 2 where only that can read the file."""
    import keras

    try:
        with foreign(subject, "reading it in Keras"):
            keras_check.refuse_unknown(dict(config), _classes(keras), _activations(keras), subject)
            return keras.saving.load_model(path, compile=False, safe_mode=True)
    except ModelError as first:
        legacy = _legacy_keras()
        if legacy is None:
            raise
        try:
            with foreign(subject, "reading it in Keras 2"):
                keras_check.refuse_unknown(dict(config), _classes(legacy), _activations(legacy), subject)
                return legacy.models.load_model(path, compile=False)
        except ModelError:
            raise first from None


def _legacy_keras() -> Any:
    try:
        import tf_keras
    except ImportError:
        return None
    return tf_keras


def _classes(keras: Any) -> frozenset[str]:
    inner = {"TFOpLambda", "SlicingOpLambda"} if keras.__name__ == "tf_keras" else set()
    return frozenset({*dir(keras.layers), *dir(keras.models), *inner})


def _activations(keras: Any) -> frozenset[str]:
    return frozenset({*dir(keras.activations), *dir(getattr(keras, "ops", object()))})


def _build(model: Any, argument: Mapping[str, Any]) -> None:
    """Build a model that was saved without input shapes with the one from ``shapes``.

    Raises:
        UsageError: it needs one.
    """
    if getattr(model, "inputs", None):
        return
    shapes = list(argument["shapes"].values())
    if len(shapes) != 1:
        raise UsageError(
            f"{argument['subject']} was saved without an input shape",
            f"set it: {setting('input_shapes', 'input:1x224x224x3')}",
        )
    with foreign(argument["subject"], "building it"):
        model.build(tuple(shapes[0]))
    if not getattr(model, "inputs", None):
        raise ModelError(
            f"{argument['subject']} has no inputs", "save it as a functional model, or with model.export()"
        )


def _of_other_size(model: Any, names: Sequence[str], argument: Mapping[str, Any]) -> Any:
    """The model for the input sizes in ``shapes`` where these differ from the saved ones; else the model itself.

    Its layers are rebuilt for the new sizes and take over the weights, so that padding that depends on the size is the
    same as in Keras.

    Raises:
        UsageError: a layer has weights for the saved size (Flatten before Dense), or fixes the size.
    """
    given, subject = argument["shapes"], str(argument["subject"])
    declared = [tuple(value.shape) for value in model.inputs]
    wanted = [
        tuple(given.get(name) or (next(iter(given.values())) if given and len(names) == 1 else shape))
        for name, shape in zip(names, declared, strict=True)
    ]
    changed = [
        f"input {name!r} has the shape {_shown(new)} instead of the declared {_shown(old)}"
        for name, new, old in zip(names, wanted, declared, strict=True)
        if len(new) == len(old) and any(size not in (None, other) for size, other in zip(old[1:], new[1:], strict=True))
    ]
    opened = any(None in shape[1:] for shape in declared)
    if not changed and not (opened and any(keras_recurrent.recurrent(model))):
        return model
    library = __import__(type(model).__module__.partition(".")[0])
    try:
        inputs = [
            library.Input(shape=shape[1:], batch_size=shape[0], name=value.name.split(":")[0], dtype=value.dtype)
            for shape, value in zip(wanted, model.inputs, strict=True)
        ]
        functional = library.Model(model.inputs, model.outputs, name=model.name)
        other = library.models.clone_model(functional, input_tensors=inputs)
        other.set_weights(model.get_weights())
    except (ValueError, TypeError) as error:
        what = " and ".join(changed) or f"input {', '.join(names)} has the given shape"
        raise UsageError(
            f"{subject}: {what}, which the model does not allow: {first_line(error)}",
            f"omit {setting('input_shapes')}, or save the model with this size",
        ) from error
    _made["notes"] += changed
    return other


def _shown(shape: Dimensions) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)


def _output_names(model: Any) -> list[str]:
    """The names of the layers that produce the outputs; a Sequential of Keras 3 does not have them."""
    return list(getattr(model, "output_names", None) or [model.layers[-1].name] * len(model.outputs))


def _fixed(subject: str, declared: Mapping[str, Dimensions], argument: Mapping[str, Any]) -> dict[str, Shape]:
    """Static shapes for all inputs (statement 1).

    Raises:
        UsageError: a name is unknown, a dimension is open, or a given shape contradicts the file.
    """
    given: Mapping[str, Shape] = argument["shapes"]
    for name in given:
        if name not in declared and not (len(declared) == len(given) == 1):
            raise UsageError(f"{subject} has no input {name!r}", f"its inputs are {', '.join(declared)}")
    fixed: dict[str, Shape] = {}
    for name, shape in declared.items():
        wanted = given.get(name) or (next(iter(given.values())) if given and len(declared) == 1 else None)
        shown = _shown(shape)
        if wanted is not None:
            fits = len(wanted) == len(shape) and all(
                size in (None, new) for size, new in zip(shape, wanted, strict=True)
            )
            if not fits:
                raise UsageError(f"{subject}: input {name!r} is {shown}", "set the open dimensions only")
            fixed[name] = tuple(wanted)
            continue
        sizes = tuple(1 if axis == 0 and size is None else size for axis, size in enumerate(shape))
        if any(size is None for size in sizes):
            example = "x".join("224" if size is None else str(size) for size in sizes)
            raise UsageError(
                f"{subject}: input {name!r} has an open shape ({shown})",
                f"set it: {setting('input_shapes', f'{name}:{example}')}",
            )
        fixed[name] = tuple(size for size in sizes if size is not None)
    return fixed


def _dtype(name: Any) -> Any:
    import tensorflow as tf

    return tf.as_dtype(name)


def _distinct(names: list[str]) -> list[str]:
    taken: set[str] = set()
    for slot, name in enumerate(names):
        number = 1
        while names[slot] in taken:
            number += 1
            names[slot] = f"{name}_{number}"
        taken.add(names[slot])
    return names


def _refuse_loops(proto: Any, subject: str) -> None:
    """Refuse loops in the output of tf2onnx; the error names the layer."""
    for node in proto.graph.node:
        if node.op_type in ("Loop", "Scan"):
            layer = re.sub(r"(/while)?(_loop)?$", "", node.name) or node.name
            raise ModelError(
                f"{subject}: layer {layer!r} is a loop ({node.op_type}), probably of a recurrent layer",
                "save the model with unroll=True in its recurrent layers, or split the part before them",
            )


def _refuse_foreign_operators(proto: Any, subject: str) -> None:
    """Refuse operators that tf2onnx left unconverted because ONNX does not have them."""
    for node in proto.graph.node:
        if node.domain not in ("", "ai.onnx", "ai.onnx.ml"):
            raise ModelError(
                f"{subject}: layer {node.name!r} ({node.op_type}) has no counterpart in ONNX",
                "replace it with standard layers",
            )
