"""The numeric check of rewrites: compare the exported with the rewritten model on seeded random inputs.

1. A *place* is an output of the model, or what a final Sigmoid, Tanh or softmax reads: after such an activation all
   values may be equal, or so near its limit that float32 has few distinct numbers left. Where the input of the
   activation is compared too, its output is compared relative to its whole range.
2. The *difference* at a place is the largest absolute difference over the largest absolute value. Values that are not
   finite must be so in both; where none is finite on a normal input, a positive input is tried as well.
3. Up to ``TOLERANCE`` it is rounding. Above that, the model itself shows how precise float32 is at that place: it runs
   once more with the result of every operator moved up or down by one unit in the last place, which is what another
   order of summation does (Monte Carlo arithmetic: Parker, UCLA CSD-970002, 1997). The resulting difference depends on
   the depth and the conditioning of the model. A rewrite is right where it differs by less than ``MARGIN`` times that
   on both inputs.

Cost: one run of each model; where statement 3 is needed, three more of the exported one (once) and one of the
rewritten.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from graphcut.errors import ModelError, first_line
from graphcut.graph import protobuf
from graphcut.graph.ingest import Ingested
from graphcut.graph.net import REARRANGING, Net
from graphcut.graph.passes.turning import TO_NCHW, TO_NHWC
from graphcut.graph.protobuf import NumpyArray
from graphcut.graph.session import ORT_ERRORS, external_values, session

SEED = 2
THREADS = 2
TOLERANCE = 1e-4
"""Folding in float32 stays below 1e-5 in well-conditioned models."""
MARGIN = 8.0
"""Rounding of another kind may be a few times larger than the one that was measured."""
ONE_STEP = 2.0**-23
"""The relative distance of neighbouring float32 numbers."""

_FINAL = frozenset({"Softmax", "LogSoftmax", "Sigmoid", "Tanh", "HardSigmoid"})
_WITHIN_ONE = _FINAL - {"LogSoftmax"}

Values = Mapping[str, NumpyArray]
"""Place -> its values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far a rewritten model is from the exported one.

    Attributes:
        error: the largest difference at a place.
        limit: the largest difference that is allowed there.
        accepted: no place is above its limit.
    """

    error: float
    limit: float
    accepted: bool


NONE = Difference(error=0.0, limit=TOLERANCE, accepted=True)
BROKEN = Difference(error=float("inf"), limit=TOLERANCE, accepted=False)


class Baseline:
    """The results of the model as exported on seeded inputs.

    They are computed in the background from construction on; weights are shared, not copied.
    """

    def __init__(self, entry: Ingested) -> None:
        self._entry = entry
        self._finals = _final_activations(entry)
        generator = np.random.default_rng(SEED)
        shapes = {name: tensor.shape for name, tensor in entry.net.inputs.items()}
        self._inputs: tuple[Values, ...] = (
            {name: generator.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()},
            {name: generator.random(shape, dtype=np.float32) for name, shape in shapes.items()},
        )
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._first = self._pool.submit(self._exported, self._inputs[0])

    def outputs(self) -> Values:
        """The results of the exported model on the first input, by place.

        Raises:
            ModelError: the model does not run.
        """
        try:
            return self._first.result()
        except ORT_ERRORS as error:
            raise ModelError(f"the model does not run: {first_line(error)}", "export it again") from error
        finally:
            self._pool.shutdown(wait=False)

    def difference_of(self, net: Net) -> Difference:
        """The difference between a rewritten net and the exported model (see the module docstring).

        Raises:
            ModelError: the exported model does not run.
        """
        wanted = self.outputs()
        limits: Mapping[str, float] = dict.fromkeys(wanted, TOLERANCE)
        try:
            errors = self._errors(net, 0, wanted)
            is_blind = not any(np.isfinite(value).any() for value in wanted.values())
            is_close = _within(errors, limits)
            if not is_close:
                limits = self._limits
            if (is_blind or not is_close) and _within(errors, limits):
                second = self._errors(net, 1, self._second)
                errors = {place: max(error, second[place]) for place, error in errors.items()}
        except ORT_ERRORS:
            return BROKEN
        worst = max(errors, key=lambda place: errors[place] / limits[place], default="")
        if not worst:
            return NONE
        return Difference(error=errors[worst], limit=limits[worst], accepted=_within(errors, limits))

    @cached_property
    def _second(self) -> Values:
        return self._exported(self._inputs[1])

    @cached_property
    def _limits(self) -> Mapping[str, float]:
        """The limit at every place (statement 3)."""
        limits = dict.fromkeys(self.outputs(), TOLERANCE)
        for inputs, wanted in zip(self._inputs, (self.outputs(), self._second), strict=True):
            for place, error in self._compared(wanted, self._exported(inputs, moved=True)).items():
                if np.isfinite(error):
                    limits[place] = max(limits[place], MARGIN * error)
        return limits

    def _errors(self, net: Net, number: int, wanted: Values) -> dict[str, float]:
        """The difference at every place that a rewritten net still has, for one input."""
        return self._compared(wanted, self._rewritten(net, self._inputs[number]))

    def _compared(self, wanted: Values, found: Values) -> dict[str, float]:
        """The difference at every place that is in ``found``."""
        errors = {}
        for place, value in found.items():
            final = self._finals.get(place)
            bounded = final is not None and final.is_bounded and final.reads in found
            layouts = (None,) if place in self._entry.net.outputs or value.ndim != len(TO_NHWC) else _LAYOUTS
            errors[place] = min(
                _difference(wanted[place] if order is None else wanted[place].transpose(order), value, float(bounded))
                for order in layouts
            )
        return errors

    def _exported(self, inputs: Values, *, moved: bool = False) -> Values:
        """Run the exported model; ``moved``: with every result moved by a step (statement 3)."""
        entry = self._entry
        inner = [final.reads for final in self._finals.values()]
        original = ModelProto()
        original.CopyFrom(entry.original)
        original.graph.output.extend(protobuf.untyped(name) for name in inner)
        if moved:
            _move_activations(original, entry.net)
        external = external_values(original, entry.weights)
        run = session(original.SerializeToString(), threads=THREADS, external=external)
        whole = {name: np.broadcast_to(array, run.inputs[name]).copy() for name, array in inputs.items()}
        names = [*entry.net.outputs, *inner]
        values = [value[:1] if entry.batch > 1 else value for value in run.run(names, whole)]
        made = dict(zip(names, values, strict=True))
        for name in entry.net.outputs if entry.batch == 1 and not _has_ceil_pools(entry.net) else ():
            shape = entry.net.shape(name)
            if shape is not None and shape != made[name].shape:
                raise ModelError(
                    f"onnx infers the shape {shape} for output {name!r}, but the model computes {made[name].shape}",
                    "export the model with static shapes",
                )
        return made

    def _rewritten(self, net: Net, inputs: Values) -> Values:
        """Run a rewritten net: the values at the places that it still has, outputs in the exported layout."""
        known = [final.reads for final in self._finals.values()]
        sizes = {name: _size(net, name) for name in known}
        inner = [name for name in known if sizes[name] and sizes[name] == _size(self._entry.net, name)]
        names = [*net.outputs, *inner]
        model = protobuf.build(
            net.name,
            net.opset,
            net.protos(),
            list(net.inputs.values()),
            [protobuf.untyped(name) for name in names],
            net.weights,
            external_above=protobuf.SMALL_ELEMENTS,
        )
        turned = {
            name: np.ascontiguousarray(array.transpose(TO_NCHW)) if name in net.nhwc_inputs else array
            for name, array in inputs.items()
        }
        external = external_values(model, net.weights)
        values = session(model.SerializeToString(), threads=THREADS, external=external).run(names, turned)
        return {
            name: value.transpose(TO_NHWC) if name in net.nhwc_outputs else value
            for name, value in zip(names, values, strict=True)
        }


def _has_ceil_pools(net: Net) -> bool:
    """Whether a pool rounds its size up: onnx counts a window that begins in the padding, onnxruntime does not."""
    return any(node.op_type.endswith("Pool") and node.attributes.get("ceil_mode", 0) for node in net.nodes)


_LAYOUTS = (None, TO_NHWC, TO_NCHW)
"""Layouts that a rewrite may have given an inner map; the shape tells them apart only if the dimensions differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Final:
    """A final activation: what it reads, and whether its output stays within -1 .. 1."""

    reads: str
    is_bounded: bool


def _final_activations(entry: Ingested) -> dict[str, _Final]:
    """The activation whose result an output only rearranges, for the outputs that have one (statement 1)."""
    net = entry.net
    exported = {name for node in entry.original.graph.node for name in node.output}
    found, taken = {}, set(net.outputs)
    for output in net.outputs:
        node = net.producer(output)
        while node is not None and node.op_type in REARRANGING:
            node = net.producer(node.inputs[0])
        if node is None or node.op_type not in _FINAL or node.inputs[0] not in exported or node.inputs[0] in taken:
            continue
        taken.add(node.inputs[0])
        found[output] = _Final(reads=node.inputs[0], is_bounded=node.op_type in _WITHIN_ONE)
    return found


def _size(net: Net, name: str) -> int:
    """Elements of an activation; 0 where it is not there or not known."""
    shape = net.shape(name)
    return 0 if shape is None or net.producer(name) is None else prod(shape)


def _move_activations(model: ModelProto, net: Net) -> None:
    """Multiply all float32 activations by 1 + or - ``ONE_STEP``, at random along the last dimension, in place."""
    generator = np.random.default_rng(SEED)
    nodes, taken = [], {name for node in model.graph.node for name in (*node.input, *node.output)}
    for node in model.graph.node:
        nodes.append(node)
        for position, name in enumerate(node.output):
            tensor = net.tensors.get(name)
            if tensor is None or net.producer(name) is None or tensor.dtype != "float32":
                continue
            signs = generator.choice(np.array([-1, 1], np.float32), tensor.shape[-1:])
            factors = np.asarray(1 + signs * np.float32(ONE_STEP), np.float32)
            still, factor = (_free(f"{name}/{what}", taken) for what in ("still", "factor"))
            model.graph.initializer.append(numpy_helper.from_array(factors, factor))
            node.output[position] = still
            nodes.append(helper.make_node("Mul", [still, factor], [name]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _free(name: str, taken: set[str]) -> str:
    """An unused name, which is marked as used."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _within(errors: Mapping[str, float], limits: Mapping[str, float]) -> bool:
    return all(error <= limits[place] for place, error in errors.items())


def _difference(wanted: NumpyArray, found: NumpyArray, least: float) -> float:
    """The largest difference divided by the largest value, or by ``least`` if that is larger (statement 2)."""
    if wanted.shape != found.shape:
        return float("inf")
    known = np.isfinite(wanted)
    if not np.array_equal(known, np.isfinite(found)):
        return float("inf")
    if not known.any():
        return 0.0
    ours, theirs = (np.asarray(values[known], np.float64) for values in (wanted, found))
    scale = max(float(np.abs(ours).max()), least)
    worst = float(np.abs(ours - theirs).max())
    return worst / scale if scale > 0 else worst
