"""Parts one after the other in one thread: the chain, the unsplit model, and a prefix with its tail.

Between parts int8 is handed over unchanged; nothing is dequantised (:mod:`graphcut.runtime.wiring`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from graphcut.errors import GraphcutError, RunError
from graphcut.runtime.devices import CPU, Device
from graphcut.runtime.interpreter import AnyArray, Edge, Interpreter, Opener, Part, in_order
from graphcut.runtime.wiring import Ends, Flow, connect


class SegmentError(RunError):
    """A part failed on an input.

    Attributes:
        label: the part ("segment 3").
        number: the index of the input, from 0.
        reason: what happened.
    """

    def __init__(self, label: str, number: int, reason: str, way_out: str = "") -> None:
        self.label, self.number, self.reason = label, number, reason
        super().__init__(f"{label} failed on input {number}: {reason}", way_out)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle all fields, for errors from other processes."""
        return type(self), (self.label, self.number, self.reason, self.way_out)


class Chain:
    """Parts ready to run one after the other, on one device or on one each.

    Args:
        parts: in order.
        opener: creates interpreters.
        devices: one for all parts, or one for each.
        inputs, outputs: names of the model's inputs and outputs, in order; empty if unknown.

    Raises:
        RunError: a part cannot be opened, or two parts do not fit.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        opener: Opener,
        *,
        devices: Sequence[Device] = (CPU,),
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
    ) -> None:
        if len(devices) not in (1, len(parts)):
            raise RunError(f"{len(devices)} devices for {len(parts)} parts", "name one device, or one per part")
        self.parts = tuple(parts)
        self._opener = opener
        self._devices = tuple(devices) * (len(parts) if len(devices) == 1 else 1)
        self._runners: list[Interpreter | None] = []
        self._count = 0
        try:
            opened = []
            for part, device in zip(parts, self._devices):
                opened.append(opener(part, device))
                self._runners.append(opened[-1])
            self.flow: Flow = connect(
                [ends_of(part, runner) for part, runner in zip(self.parts, opened)], inputs, outputs
            )
        except BaseException:
            self.close()
            raise
        self.seconds = [0.0] * len(self.parts)

    @property
    def inputs(self) -> tuple[Edge, ...]:
        """The model's inputs."""
        return self.flow.inputs

    @property
    def outputs(self) -> tuple[Edge, ...]:
        """The model's outputs."""
        return self.flow.outputs

    def run(self, inputs: object) -> tuple[AnyArray, ...]:
        """Run once.

        Args:
            inputs: one array, a sequence in order or a mapping by name; int8 is used as is, floats are quantised.

        Returns:
            The model's outputs in order, in the files' dtype.

        Raises:
            RunError: an input does not fit.
            SegmentError: a part failed; names it and the index of the input. The chain can continue: the part is opened
                again for the next input.
        """
        values = self._run(inputs, keep_all=False)
        return tuple(values[edge.name] for edge in self.flow.outputs)

    def run_all(self, inputs: object) -> dict[str, AnyArray]:
        """Like :meth:`run`, but return every tensor that is handed over, by name, including the model's inputs."""
        return self._run(inputs, keep_all=True)

    def _run(self, inputs: object, *, keep_all: bool) -> dict[str, AnyArray]:
        number, self._count = self._count, self._count + 1
        values = dict(zip((edge.name for edge in self.flow.inputs), in_order(inputs, self.flow.inputs)))
        for position in range(len(self.parts)):
            began = time.perf_counter()
            self._step(values, position, number)
            self.seconds[position] = time.perf_counter() - began
            if not keep_all:
                self._forget(values, position)
        return values

    def _step(self, values: dict[str, AnyArray], position: int, number: int) -> None:
        ends = self.flow.parts[position]
        try:
            made = self._opened(position)([values[edge.name] for edge in ends.inputs])
        except (GraphcutError, RuntimeError, ValueError, OSError) as error:
            self._drop(self._devices[position])
            reason = error.message if isinstance(error, GraphcutError) else reason_of(error)
            raise SegmentError(ends.label, number, reason) from error
        values.update(zip((edge.name for edge in ends.outputs), made))

    def _opened(self, position: int) -> Interpreter:
        """The interpreter of the part, opened again if it was dropped.

        Raises:
            RunError: the chain is closed, or the file has changed.
        """
        if not self._runners:
            raise RunError("the chain is closed", "open the split again")
        runner = self._runners[position]
        if runner is None:
            part = self.parts[position]
            runner = self._runners[position] = self._opener(part, self._devices[position])
            if ends_of(part, runner) != self.flow.parts[position]:
                raise RunError(f"{part.path.name} has changed since it was opened", "start again")
        return runner

    def _drop(self, device: Device) -> None:
        """Drop every interpreter on a device where one failed: on an Edge TPU they share its state."""
        for position, runner in enumerate(self._runners):
            if runner is not None and self._devices[position] == device:
                self._runners[position] = None
                with suppress(RuntimeError, ValueError, OSError):  # it has failed already
                    runner.close()

    def _forget(self, values: dict[str, AnyArray], position: int) -> None:
        """Drop the tensors that are not needed after a part."""
        alive = self.flow.alive[position]
        for name in [name for name in values if name not in alive]:
            del values[name]

    def close(self) -> None:
        """Release all devices."""
        runners, self._runners = self._runners, []
        for runner in runners:
            if runner is not None:
                runner.close()

    def __enter__(self) -> Chain:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def ends_of(part: Part, runner: Interpreter) -> Ends:
    """A part's label, and its edges from its interpreter."""
    return Ends(part.label, tuple(runner.inputs), tuple(runner.outputs))


def reason_of(error: BaseException) -> str:
    """The error in one line: its type and the first line of its text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
