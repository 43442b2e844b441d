"""The float segments run one after the other, as a device would run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper

from graphcut.graph.reference import AT_ONCE, Reference, arranged_logits, logits
from graphcut.graph.topology import topology
from graphcut.records import Array, Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatChain:
    """What a chain of float segments computed.

    Attributes:
        values: tensor name -> float32 values of all samples concatenated along the first axis, NCHW, for every
            segment's outputs and the tensors before final softmaxes.
        logits: output tensor -> values before its final softmax, arranged as the output is
            (:func:`graphcut.graph.reference.arranged_logits`).
    """

    values: Mapping[str, Array]
    logits: Mapping[str, Array]


def float_chain(segments: Sequence[ModelProto | Path], samples: Samples, *, at_once: int = AT_ONCE) -> FloatChain:
    """Run extracted segments as a chain in onnxruntime, with all optimisations off.

    Args:
        segments: in order; each reads the model's inputs and the outputs of the segments before it, by name.
        samples: the model's inputs.
        at_once: samples that run at the same time.

    Raises:
        ModelError: onnxruntime cannot run a segment.
    """
    values: dict[str, Array] = dict(samples.arrays)
    before_softmax: dict[str, Array] = {}
    for given in segments:
        segment = onnx.load(given) if isinstance(given, Path) else given
        graph = topology(segment)
        inner = [name for output, name in logits(graph).items() if name != output]
        reference = Reference(segment, [name for name in dict.fromkeys(inner) if name not in graph.outputs])
        names = [value.name for value in segment.graph.input]
        produced: dict[str, list[Array]] = {name: [] for name in reference.outputs}
        feeds = ({name: values[name][number : number + 1] for name in names} for number in range(len(samples)))
        for made in reference.run_all(feeds, at_once=at_once):
            for name, value in made.items():
                produced[name].append(np.atleast_1d(value))
        values |= {name: np.concatenate(arrays) for name, arrays in produced.items()}
        before_softmax |= arranged_logits(graph, values, len(samples))
    return FloatChain(
        values={name: array for name, array in values.items() if name not in samples.arrays},
        logits=before_softmax,
    )


def inner_values(path: Path, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The values of every activation of an ONNX file for one sample: tensor name -> values, NCHW.

    Raises:
        ModelError: onnxruntime cannot run it.
    """
    model = onnx.load(path)
    outputs = {value.name for value in model.graph.output}
    inner = [name for node in model.graph.node for name in node.output if name and name not in outputs]
    reference = Reference(model, tuple(dict.fromkeys(inner)))
    return reference.run(inputs)


class NoisySegment:
    """A float segment with noise added to inner tensors.

    Args:
        path: its ONNX file.
        noisy: tensors to which noise can be added, and their shapes.

    Raises:
        ModelError: onnxruntime cannot run it.
    """

    def __init__(self, path: Path, noisy: Mapping[str, tuple[int, ...]] = MappingProxyType({})) -> None:
        model = onnx.load(path)
        self._before = {name: inner for name, inner in logits(topology(model)).items() if name != inner}
        self._inputs = [value.name for value in model.graph.input]
        self._zeros = {_noise_of(name): np.zeros(shape, np.float32) for name, shape in noisy.items()}
        nodes = []
        for node in model.graph.node:
            nodes.append(node)
            for place, name in enumerate(node.output):
                if name in noisy:
                    node.output[place] = f"{name}~exact"
                    nodes.append(helper.make_node("Add", [node.output[place], _noise_of(name)], [name]))
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        for name, shape in noisy.items():
            model.graph.input.append(helper.make_tensor_value_info(_noise_of(name), TensorProto.FLOAT, shape))
        inner = [name for name in dict.fromkeys(self._before.values()) if name not in self._before]
        self._reference = Reference(model, [name for name in inner if name not in {o.name for o in model.graph.output}])

    def __call__(
        self, values: Mapping[str, Array], noise: Mapping[str, Array] = MappingProxyType({})
    ) -> dict[str, Array]:
        """The outputs, and what goes into their final softmaxes (:func:`logits_or`), for one sample.

        Args:
            values: of the inputs, among others.
            noise: tensor -> what is added to it; of those that were declared.

        Raises:
            ModelError: onnxruntime cannot run it.
        """
        added = self._zeros | {_noise_of(name): value for name, value in noise.items()}
        found = self._reference.run({name: values[name] for name in self._inputs} | added)
        return found | {_logits_of(name): found[inner] for name, inner in self._before.items()}


def logits_or(values: Mapping[str, Array], output: str) -> Array:
    """What goes into the final softmax of an output of :class:`NoisySegment`, or the output."""
    return values.get(_logits_of(output), values[output])


def _noise_of(name: str) -> str:
    return f"{name}~noise"


def _logits_of(name: str) -> str:
    return f"{name}~logits"
