"""The pipeline over several machines, on Ray: one actor for each part, placed by a resource of its machine.

1. Ray schedules, moves tensors from actor to actor, restarts actors that die and repeats their calls. This module adds
   what is specific to a split: which tensor goes to which part, the order of results, and the number of inputs in
   progress.
2. A part's file is sent with its actor, so the machines need no shared folder. They need graphcut's runtime, numpy and
   an interpreter; with ``code`` (the ``graphcut`` folder of a bundle) the runtime is sent too.
3. An input that fails reaches the caller in its place as :class:`graphcut.runtime.chain.SegmentError`; the others give
   what they give on one machine, byte for byte within one interpreter and kernel set.

Ray requires the same minor version of Python on all machines.
"""

from __future__ import annotations

import os
import platform
import socket
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from graphcut.errors import DependencyError, GraphcutError, RunError
from graphcut.runtime.chain import SegmentError, reason_of
from graphcut.runtime.devices import CPU, Device
from graphcut.runtime.interpreter import AnyArray, Edge, Interpreter, Opener, Part, in_order
from graphcut.runtime.pipeline import PipelineClosedError
from graphcut.runtime.results import Results
from graphcut.runtime.wiring import Ends, Flow, connect

EDGETPU = "edgetpu"
"""The resource by which parts for an Edge TPU are placed: ``ray start --resources '{"edgetpu": 1}'``."""


class ClusterSettings(NamedTuple):
    """Settings of a cluster pipeline.

    Attributes:
        address: of a running cluster ("auto", "192.168.1.5:6379", "ray://..."); None starts one on this machine.
        device: what each actor opens its part on; "usb" takes the machine's first free Edge TPU.
        resources: what each actor needs of its machine, for all parts; None for one "edgetpu" on a TPU, else one CPU.
        for_part: what the actor of a part needs besides, by the part's label: names a machine for it.
        ahead: inputs in progress for each part.
        retries: number of times that an input is run again after its actor died.
        wait_s: how long to wait for machines for the parts.
        code: a folder ``graphcut`` to take to the machines; None where graphcut is installed there.
        local_options: for a cluster started here, as ``ray.init`` takes them.
    """

    address: str | None = None
    device: Device = CPU
    resources: Mapping[str, float] | None = None
    for_part: Mapping[str, Mapping[str, float]] = MappingProxyType({})
    ahead: int = 3
    retries: int = 3
    wait_s: float = 120.0
    code: Path | None = None
    local_options: Mapping[str, Any] = MappingProxyType({})


class Whereabouts(NamedTuple):
    """Where an actor runs: host name, Ray's id of the node, process id."""

    host: str
    node: str
    pid: int


class _PartActor:
    """One part in one process somewhere; Ray makes an actor of it."""

    def __init__(self, label: str, data: bytes, device: Device, opener: Opener) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "part.tflite"
            path.write_bytes(data)
            self._label = label
            self._runner: Interpreter = opener(Part(label, path, path if device.is_tpu else None), device)

    def ends(self) -> Ends:
        """Label and edges of the part."""
        return Ends(self._label, tuple(self._runner.inputs), tuple(self._runner.outputs))

    def where(self) -> Whereabouts:
        """Machine and process of the actor."""
        return Whereabouts(platform.node(), require_ray().get_runtime_context().get_node_id(), os.getpid())

    def run(self, number: int, *arrays: AnyArray) -> Any:
        """Run once: the only output, or all of them."""
        try:
            made = self._runner(arrays)
        except (GraphcutError, RuntimeError, ValueError, OSError) as error:
            reason = error.message if isinstance(error, GraphcutError) else reason_of(error)
            raise SegmentError(self._label, number, reason) from error
        return made[0] if len(made) == 1 else made


class ClusterPipeline:
    """Parts on the machines of a cluster.

    Args:
        parts: in order.
        opener: makes interpreters there; picklable.
        inputs, outputs: names of the model's inputs and outputs, in order; empty if unknown.
        settings: where and how.

    Raises:
        DependencyError: Ray is not installed.
        RunError: the cluster is not reachable, a part cannot be placed or opened, or two parts do not fit.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        opener: Opener,
        *,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        settings: ClusterSettings | None = None,
    ) -> None:
        self._settings = settings or ClusterSettings()
        self._ray = require_ray()
        self._lock = threading.Lock()
        self._count = 0
        self._closed = False
        self._started = join(self._ray, self._settings)
        try:
            self.actors = [self._place(part, opener) for part in parts]
            self.flow: Flow = connect(self._ends(parts), inputs, outputs)
        except BaseException:
            self.close()
            raise
        self._runs = [
            actor.run.options(num_returns=len(ends.outputs))
            for actor, ends in zip(self.actors, self.flow.parts, strict=True)
        ]

    def _place(self, part: Part, opener: Opener) -> Any:
        settings = self._settings
        path = part.compiled if settings.device.is_tpu else part.path
        if path is None or not path.is_file():
            raise RunError(
                f"{part.label} has no file for {settings.device}", "compile it with graphcut compile, or run on cpu"
            )
        wanted = settings.resources
        if wanted is None:
            wanted = {EDGETPU: 1} if settings.device.is_tpu else {"CPU": 1}
        needed = {**wanted, **settings.for_part.get(part.label, {})}
        actor = self._ray.remote(_PartActor).options(
            num_cpus=needed.pop("CPU", 0),
            resources=needed,
            max_restarts=-1,
            max_task_retries=settings.retries,
        )
        return actor.remote(part.label, path.read_bytes(), settings.device, opener)

    def _ends(self, parts: Sequence[Part]) -> list[Ends]:
        """What the actors opened; waits until all are placed."""
        asked = [actor.ends.remote() for actor in self.actors]
        ready, waiting = self._ray.wait(asked, num_returns=len(asked), timeout=self._settings.wait_s)
        if waiting:
            label = parts[asked.index(waiting[0])].label
            free = ", ".join(f"{name} {amount:g}" for name, amount in sorted(_named(self._ray.available_resources())))
            raise RunError(
                f"no machine has room for {label} within {self._settings.wait_s:g} s (free: {free or 'nothing'})",
                "add machines, or request other resources",
            )
        try:
            ends: list[Ends] = self._ray.get(ready and asked)
        except self._ray.exceptions.RayError as error:
            raise RunError(
                f"a part cannot be opened in the cluster ({cause_of(error)})",
                "run the part on this machine to see the error",
            ) from error
        return ends

    @property
    def inputs(self) -> tuple[Edge, ...]:
        """The model's inputs."""
        return self.flow.inputs

    @property
    def outputs(self) -> tuple[Edge, ...]:
        """The model's outputs."""
        return self.flow.outputs

    @property
    def capacity(self) -> int:
        """Number of inputs that :meth:`run` keeps in progress."""
        return self._settings.ahead * len(self.actors)

    def submit(self, inputs: object) -> Future[tuple[AnyArray, ...]]:
        """Submit one input, as :meth:`graphcut.runtime.pipeline.Pipeline.submit` does, without waiting.

        Raises:
            RunError: the input does not fit.
            PipelineClosedError: the pipeline is closed.
        """
        with self._lock:
            if self._closed:
                raise PipelineClosedError("the pipeline is closed")
            number, self._count = self._count, self._count + 1
        try:
            arrays = in_order(inputs, self.flow.inputs)
        except RunError as error:
            raise RunError(f"input number {number}: {error.message}", error.way_out) from error
        values: dict[str, Any] = dict(zip((edge.name for edge in self.flow.inputs), arrays, strict=True))
        for call, ends in zip(self._runs, self.flow.parts, strict=True):
            made = call.remote(number, *(values[edge.name] for edge in ends.inputs))
            references = [made] if len(ends.outputs) == 1 else made
            values.update(zip((edge.name for edge in ends.outputs), references, strict=True))
        return self._gathered(number, [values[edge.name] for edge in self.flow.outputs])

    def _gathered(self, number: int, references: Sequence[Any]) -> Future[tuple[AnyArray, ...]]:
        """One future of several references."""
        result: Future[tuple[AnyArray, ...]] = Future()
        result.set_running_or_notify_cancel()
        futures = [reference.future() for reference in references]
        left = [len(futures)]
        lock = threading.Lock()

        def done(future: Future[AnyArray]) -> None:
            error = future.exception()
            with lock:
                left[0] -= 1
                if result.done():
                    return
                if error is not None:
                    result.set_exception(self._failure(number, error))
                elif not left[0]:
                    result.set_result(tuple(np.asarray(each.result()) for each in futures))

        for future in futures:
            future.add_done_callback(done)
        return result

    def _failure(self, number: int, error: BaseException) -> SegmentError:
        cause = cause_of(error)
        if isinstance(cause, SegmentError):
            return SegmentError(cause.label, number, cause.reason, cause.way_out)
        failure = SegmentError("a part", number, reason_of(cause), "see the cluster's log")
        failure.__cause__ = error
        return failure

    def run(self, iterable: Iterable[object], *, failures: Literal["raise", "return"] = "raise") -> Results:
        """Results of many inputs in order, as :meth:`graphcut.runtime.pipeline.Pipeline.run` gives them."""
        return Results(self.submit, iterable, self.capacity, failures, PipelineClosedError)

    def where(self) -> dict[str, Whereabouts]:
        """Label of each part -> where its actor runs now."""
        found: list[Whereabouts] = self._ray.get([actor.where.remote() for actor in self.actors])
        return {ends.label: place for ends, place in zip(self.flow.parts, found, strict=True)}

    def close(self) -> None:
        """Stop the actors, and the cluster if it was started here."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for actor in getattr(self, "actors", []):
            self._ray.kill(actor)
        if self._started:
            self._ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def require_ray() -> Any:
    """Import Ray.

    Raises:
        DependencyError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no data is sent outside the machines
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what later releases do by themselves
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise DependencyError("Ray is not installed", "pip install '.[cluster]' in graphcut's folder") from error
    return ray


def join(ray: Any, settings: ClusterSettings) -> bool:
    """Connect to a cluster, or start one; True where this process has to end the connection.

    Raises:
        RunError: it is not reachable.
    """
    if ray.is_initialized():
        return False
    if settings.address is not None:
        _knock(settings.address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if settings.address is None:
        options |= {"include_dashboard": False, **settings.local_options}
    else:
        options["address"] = settings.address
    if settings.code is not None:
        options["runtime_env"] = {"py_modules": [str(settings.code)]}
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        where = f"the cluster at {settings.address}" if settings.address else "a cluster on this machine"
        raise RunError(f"cannot reach {where} ({reason_of(error)})", "start it with `ray start --head`") from error
    return True


def _knock(address: str) -> None:
    """Check that the cluster listens; Ray itself would wait for minutes.

    Raises:
        RunError: it does not.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # "auto", or a form that Ray judges
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise RunError(
            f"cannot reach the cluster at {address} ({reason_of(error)})", "start it with `ray start --head`"
        ) from error


def cause_of(error: BaseException) -> BaseException:
    """The error that an actor raised, without Ray's wrapper."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


def _named(resources: Mapping[str, float]) -> list[tuple[str, float]]:
    return [
        (name, amount) for name, amount in resources.items() if not name.startswith(("node:", "object_store", "mem"))
    ]
