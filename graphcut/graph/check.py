"""The numeric check of rewrites: the model as exported against the model as rewritten, on one random input."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from graphcut.errors import ModelError
from graphcut.graph import protobuf
from graphcut.graph.entry import Entry
from graphcut.graph.net import Net, first_line
from graphcut.graph.ort import ORT_ERRORS, session
from graphcut.graph.passes.layout import TO_NCHW
from graphcut.graph.protobuf import NumpyArray

SEED = 2
THREADS = 2


class Baseline:
    """What the model as exported computes on a seeded standard normal input.

    It is computed in the background from the moment the object exists; weights are shared, not copied.
    """

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        generator = np.random.default_rng(SEED)
        self._inputs: dict[str, NumpyArray] = {
            name: generator.standard_normal(tensor.shape, dtype=np.float32) for name, tensor in entry.net.inputs.items()
        }
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._result = self._pool.submit(self._run_original)

    def error_of(self, net: Net) -> float:
        """Largest difference of a rewritten net's outputs, relative to each output's largest value.

        Raises:
            ModelError: the model as exported does not run at all.
        """
        try:
            wanted = self._result.result()
        except ORT_ERRORS as error:
            raise ModelError(f"the model does not run: {first_line(error)}", "export it again") from error
        finally:
            self._pool.shutdown(wait=False)
        try:
            found = self._run(net)
        except ORT_ERRORS:
            return float("inf")
        return max((_difference(wanted[name], value) for name, value in found.items()), default=0.0)

    def _run_original(self) -> dict[str, NumpyArray]:
        entry = self._entry
        run = session(entry.original.SerializeToString(), threads=THREADS, external=entry.weights)
        batch = {tensor.name: tuple(tensor.shape) for tensor in run.get_inputs()}
        inputs = {name: np.broadcast_to(array, batch[name]).copy() for name, array in self._inputs.items()}
        names = list(entry.net.outputs)
        values = [value[:1] if entry.batch > 1 else value for value in run.run(names, inputs)]
        return dict(zip(names, values, strict=True))

    def _run(self, net: Net) -> dict[str, NumpyArray]:
        model = protobuf.build(
            net.name,
            net.opset,
            net.protos(),
            list(net.inputs.values()),
            net.output_infos(),
            net.weights,
            external_above=protobuf.SMALL_ELEMENTS,
        )
        large = {name: array for name, array in net.weights.items() if array.size > protobuf.SMALL_ELEMENTS}
        inputs = {
            name: np.ascontiguousarray(array.transpose(TO_NCHW)) if name in net.nhwc_inputs else array
            for name, array in self._inputs.items()
        }
        values = session(model.SerializeToString(), threads=THREADS, external=large).run(net.outputs, inputs)
        return {
            name: value.transpose(0, 2, 3, 1) if name in net.nhwc_outputs else value
            for name, value in zip(net.outputs, values, strict=True)
        }


def _difference(wanted: NumpyArray, found: NumpyArray) -> float:
    if wanted.shape != found.shape:
        return float("inf")
    if not wanted.size:
        return 0.0
    scale = float(np.abs(wanted).max())
    worst = float(np.abs(wanted.astype(np.float64) - found.astype(np.float64)).max())
    return worst / scale if scale > 0 else worst
