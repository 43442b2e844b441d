"""What holds for every test."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

from graphcut import cache_folder
from graphcut.graph import native

# A shell without job control starts background jobs with SIGINT ignored, and children inherit that: the commands that
# tests interrupt would never end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline for one example: the machine may be busy, and `timeout` in pyproject.toml ends a test that hangs.
settings.register_profile("graphcut", deadline=None)
settings.load_profile("graphcut")

EXAMPLES = pytest.StashKey[list[int]]()
"""One entry, the number of examples that the property which runs now has tried; empty where nothing is counted."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--examples-times", type=int, default=1, metavar="N", help="try N times as many examples")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[EXAMPLES] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--examples-times N``, let every property try N times as many examples as it says, and count them."""
    times = config.getoption("--examples-times")
    tests = [item.obj for item in items if isinstance(item, pytest.Function) and is_hypothesis_test(item.obj)]
    if times == 1 or not tests:
        return
    config.stash[EXAMPLES].append(0)
    for handle, test in {id(test.hypothesis): (test.hypothesis, test) for test in tests}.values():
        own = getattr(test, "_hypothesis_internal_use_settings", None) or settings.default
        more = settings(own, max_examples=own.max_examples * times, deadline=None, suppress_health_check=HealthCheck)
        getattr(test, "__func__", test)._hypothesis_internal_use_settings = more
        handle.inner_test = _counted(handle.inner_test, config.stash[EXAMPLES])


def _counted[**P, T](test: Callable[P, T], count: list[int]) -> Callable[P, T]:
    @functools.wraps(test)
    def counted(*args: P.args, **kwargs: P.kwargs) -> T:
        count[0] += 1
        return test(*args, **kwargs)

    return counted


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Hand the number of examples to the process that prints the summary (another one under pytest-xdist)."""
    count = item.config.stash[EXAMPLES]
    if call.when == "call" and count and count[0]:
        item.user_properties.append(("examples", count[0]))
        count[0] = 0
    yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    properties = [dict(item.user_properties) for item in reports if item.when == "call"]
    counts = [int(item["examples"]) for item in properties if "examples" in item]
    if counts:
        terminalreporter.write_line(f"{sum(counts)} examples of {len(counts)} properties")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep results of earlier test runs out of this one, whose tests share theirs. Exports take minutes and stay."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    exports = cache_folder.exports()
    exports.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(shared)
    cache_folder.root().mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        cache_folder.exports().symlink_to(exports)


@pytest.fixture(scope="session", autouse=True)
def native_worker() -> Iterator[None]:
    """Keep one worker for onnxruntime over all tests of a process: each would start its own, in half a second."""
    with native.worker():
        yield
