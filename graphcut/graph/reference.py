"""The float reference: onnxruntime on the CPU with all optimisations off.

Each run uses one thread; several runs may be active at the same time. onnxruntime divides a matrix product among its
threads, and the order of summation depends on their number, so the last bits of a result do too (seen with layers in
parts of 100 KiB). They do not depend on other runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from graphcut.errors import ModelError, first_line
from graphcut.graph import protobuf
from graphcut.graph.model import Model
from graphcut.graph.net import REARRANGING
from graphcut.graph.session import ORT_ERRORS, external_values, session
from graphcut.records import Array, Graph, Node, Samples, Shape

AT_ONCE = 2
"""Samples that run at the same time."""


class Reference:
    """A float model that can be run; deterministic.

    Args:
        model: a model, or the path of its file.
        outputs: tensors that ``run`` can return besides the model's outputs; None: none.

    Raises:
        ModelError: onnxruntime cannot run it.
    """

    def __init__(self, model: ModelProto | Path, outputs: Sequence[str] = ()) -> None:
        try:
            if isinstance(model, Path):
                self._session = session(model, threads=1)
            else:
                skeleton, self._weights = _apart(model, outputs)
                self._session = session(skeleton.SerializeToString(), threads=1, external=self._weights)
        except ORT_ERRORS as error:
            raise ModelError(f"the float model does not run: {first_line(error)}") from error
        self.outputs = self._session.outputs

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the model on one sample.

        Args:
            inputs: input name -> float32 array of exactly the declared shape (NCHW, batch 1).
            outputs: names to return; None: all of the model's outputs.
        """
        names = list(self.outputs if outputs is None else outputs)
        try:
            values = self._session.run(names, dict(inputs))
        except ORT_ERRORS as error:
            raise ModelError(f"the float model does not run: {first_line(error)}") from error
        return dict(zip(names, values, strict=True))

    def run_all(
        self, samples: Iterable[Mapping[str, Array]], outputs: Sequence[str] | None = None, *, at_once: int = AT_ONCE
    ) -> Iterator[dict[str, Array]]:
        """Run the model on many samples; the results are in order.

        Args:
            samples: the inputs of each sample, as :meth:`run` takes them.
            outputs: names to return; None: all of the model's outputs.
            at_once: samples that run at the same time.
        """
        with ThreadPoolExecutor(at_once) as pool:
            yield from pool.map(lambda inputs: self.run(inputs, outputs), samples)


def activations(model: Model, samples: Samples, tensors: Sequence[str]) -> dict[str, Array]:
    """The values of some tensors for every sample.

    Args:
        model: normalised.
        samples: N samples for the model's inputs.
        tensors: names of activations: inputs, inner tensors or outputs.

    Returns:
        Tensor name -> float32 array: the N results concatenated along the first axis, (N, *shape[1:]) where the
        first dimension is 1 and (N * shape[0], *shape[1:]) elsewhere; (N,) for a scalar.
    """
    inner = [name for name in dict.fromkeys(tensors) if name not in model.graph.inputs]
    reference = Reference(model.proto, [name for name in inner if name not in model.graph.outputs])
    results: dict[str, Array] = {name: samples.arrays[name] for name in tensors if name in model.graph.inputs}
    for name in inner:
        tensor = model.graph.tensors[name]
        results[name] = np.empty((len(samples) * rows(tensor.shape), *tensor.shape[1:]), dtype=tensor.dtype)
    feeds = ({name: array[n : n + 1] for name, array in samples.arrays.items()} for n in range(len(samples)))
    for index, values in enumerate(reference.run_all(feeds, inner) if inner else ()):
        for name, value in values.items():
            count = rows(model.graph.tensors[name].shape)
            results[name][index * count : (index + 1) * count] = value
    return results


def rows(shape: Shape) -> int:
    """The length of one result of this shape along the first axis of the concatenated results."""
    return shape[0] if shape else 1


def logits(graph: Graph) -> dict[str, str]:
    """Output name -> the tensor before its final softmax; an output without one maps to itself."""
    makers = {name: node for node in graph.nodes for name in node.outputs}
    found: dict[str, str] = {}
    for output in graph.outputs:
        final = _final_softmax(makers, output)
        found[output] = output if final is None else final[0].inputs[0]
    return found


def arranged_logits(graph: Graph, values: Mapping[str, Array], samples: int) -> dict[str, Array]:
    """The inputs of the final softmaxes, arranged as their outputs are.

    The operators between a softmax and the output only rearrange, so they can be applied to the softmax's input as
    well. Then the two can be compared element by element, whatever layout a converter chose for the softmax.

    Args:
        graph: of the model.
        values: tensor -> values of all samples, as :func:`activations` returns them.
        samples: their number.

    Returns:
        Output name -> values before its softmax, with the shape that :func:`activations` returns for the output;
        outputs without a final softmax are omitted.
    """
    makers = {name: node for node in graph.nodes for name in node.outputs}
    arranged = {}
    for output in graph.outputs:
        final = _final_softmax(makers, output)
        if final is None:
            continue
        softmax, behind = final
        array = values[softmax.inputs[0]].reshape(samples, *graph.tensors[softmax.inputs[0]].shape)
        for node in behind:
            if node.op_type == "Transpose":
                order = node.attributes.get("perm", tuple(reversed(range(array.ndim - 1))))
                assert isinstance(order, tuple)
                array = array.transpose(0, *(1 + axis for axis in order))
            else:
                array = array.reshape(samples, *graph.tensors[node.outputs[0]].shape)
        shape = graph.tensors[output].shape
        arranged[output] = np.ascontiguousarray(array).reshape(samples * rows(shape), *shape[1:])
    return arranged


def _final_softmax(makers: Mapping[str, Node], output: str) -> tuple[Node, list[Node]] | None:
    """The softmax that produces an output, and the operators after it, which only rearrange; None if there is none."""
    behind: list[Node] = []
    node = makers.get(output)
    while node is not None and node.op_type in REARRANGING:
        behind.insert(0, node)
        node = makers.get(node.inputs[0])
    return (node, behind) if node is not None and node.op_type in ("Softmax", "LogSoftmax") else None


def _apart(model: ModelProto, outputs: Sequence[str]) -> tuple[ModelProto, dict[str, protobuf.NumpyArray]]:
    """The model with more outputs and separate large weights, so that a session does not copy them."""
    skeleton = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = skeleton.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.output.extend(protobuf.untyped(name) for name in outputs)
    weights = {}
    for tensor in model.graph.initializer:
        if _elements(tensor) > protobuf.SMALL_ELEMENTS:
            array = numpy_helper.to_array(tensor)
            weights[tensor.name] = array
            graph.initializer.append(protobuf.external(tensor.name, array))
        else:
            graph.initializer.append(tensor)
    return skeleton, external_values(skeleton, weights)


def _elements(tensor: TensorProto) -> int:
    return int(np.prod(tensor.dims))
