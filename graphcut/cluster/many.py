"""Map one function over many arguments on a Ray cluster, with results as they complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from graphcut.cluster.cluster_pipeline import ClusterSettings, cause_of, join, require_ray


def map_over[Argument, Result](
    function: Callable[[Argument], Result],
    arguments: Sequence[Argument],
    settings: ClusterSettings,
    *,
    processors: float = 2,
) -> Iterator[tuple[int, Result | BaseException]]:
    """Call a function once for each argument, on any machines with room.

    Ray places the calls, and repeats one whose process died (``settings.retries`` times).

    Args:
        function: picklable by name on every machine.
        arguments: picklable.
        settings: address and retries count; the rest is for pipelines.
        processors: that one call takes.

    Yields:
        Position of an argument and its result, or the error that its call raised, in the order in which they end.

    Raises:
        DependencyError: Ray is not installed.
        RunError: the cluster is not reachable.
    """
    ray = require_ray()
    started = join(ray, settings)
    try:
        remote = ray.remote(function).options(num_cpus=processors, max_retries=settings.retries)
        waiting = {remote.remote(argument): position for position, argument in enumerate(arguments)}
        while waiting:
            (ready, *_), _ = ray.wait(list(waiting), num_returns=1)
            try:
                result: Result | BaseException = ray.get(ready)
            except ray.exceptions.RayError as error:
                result = cause_of(error)
            yield waiting.pop(ready), result
    finally:
        if started:
            ray.shutdown()
