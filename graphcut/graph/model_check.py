"""The numeric check of rewrites: the model as exported against the model as rewritten, on one random input."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from onnx import ModelProto

from graphcut.errors import ModelError
from graphcut.graph import protobuf
from graphcut.graph.ingest import Ingested
from graphcut.graph.net import Net, first_line
from graphcut.graph.passes.turning import TO_NCHW, TO_NHWC
from graphcut.graph.protobuf import NumpyArray
from graphcut.graph.session import ORT_ERRORS, external_values, session

SEED = 2
THREADS = 2


class Baseline:
    """What the model as exported computes on a seeded standard normal input.

    It is computed in the background from the moment the object exists; weights are shared, not copied.
    """

    def __init__(self, entry: Ingested) -> None:
        self._entry = entry
        generator = np.random.default_rng(SEED)
        self._inputs: dict[str, NumpyArray] = {
            name: generator.standard_normal(tensor.shape, dtype=np.float32) for name, tensor in entry.net.inputs.items()
        }
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._result = self._pool.submit(self._run_original)

    def outputs(self) -> dict[str, NumpyArray]:
        """The outputs of the model as exported, and what goes into its final softmaxes.

        Raises:
            ModelError: it does not run at all.
        """
        try:
            return self._result.result()
        except ORT_ERRORS as error:
            raise ModelError(f"the model does not run: {first_line(error)}", "export it again") from error
        finally:
            self._pool.shutdown(wait=False)

    def error_of(self, net: Net) -> float:
        """Largest difference of a rewritten net's outputs, relative to each output's largest value.

        Raises:
            ModelError: the model as exported does not run at all.
        """
        wanted = self.outputs()
        try:
            found = self._run(net)
        except ORT_ERRORS:
            return float("inf")
        return max((_difference(wanted[name], value) for name, value in found.items()), default=0.0)

    def _run_original(self) -> dict[str, NumpyArray]:
        entry = self._entry
        extra = _before_softmax(entry)
        original = ModelProto()
        original.CopyFrom(entry.original)
        original.graph.output.extend(protobuf.untyped(name) for name in extra)
        run = session(original.SerializeToString(), threads=THREADS, external=external_values(original, entry.weights))
        batch = {tensor.name: tuple(tensor.shape) for tensor in run.get_inputs()}
        inputs = {name: np.broadcast_to(array, batch[name]).copy() for name, array in self._inputs.items()}
        names = [*entry.net.outputs, *extra]
        values = [value[:1] if entry.batch > 1 else value for value in run.run(names, inputs)]
        return dict(zip(names, values, strict=True))

    def _run(self, net: Net) -> dict[str, NumpyArray]:
        extra = [name for name in _before_softmax(self._entry) if net.shape(name) == self._entry.net.shape(name)]
        names = [*net.outputs, *extra]
        model = protobuf.build(
            net.name,
            net.opset,
            net.protos(),
            list(net.inputs.values()),
            [protobuf.untyped(name) for name in names],
            net.weights,
            external_above=protobuf.SMALL_ELEMENTS,
        )
        inputs = {
            name: np.ascontiguousarray(array.transpose(TO_NCHW)) if name in net.nhwc_inputs else array
            for name, array in self._inputs.items()
        }
        values = session(model.SerializeToString(), threads=THREADS, external=external_values(model, net.weights)).run(
            names, inputs
        )
        return {
            name: value.transpose(TO_NHWC) if name in net.nhwc_outputs else value
            for name, value in zip(names, values, strict=True)
        }


def _before_softmax(entry: Ingested) -> list[str]:
    """What goes into a final softmax: an untrained model's probabilities are all alike and would hide a difference."""
    net = entry.net
    makers = [net.producer(name) for name in net.outputs]
    names = [node.inputs[0] for node in makers if node is not None and node.op_type in ("Softmax", "LogSoftmax")]
    original = {name for node in entry.original.graph.node for name in node.output}
    return [name for name in dict.fromkeys(names) if name in original and name not in net.outputs]


def _difference(wanted: NumpyArray, found: NumpyArray) -> float:
    if wanted.shape != found.shape:
        return float("inf")
    if not wanted.size:
        return 0.0
    scale = float(np.abs(wanted).max())
    worst = float(np.abs(wanted.astype(np.float64) - found.astype(np.float64)).max())
    return worst / scale if scale > 0 else worst
