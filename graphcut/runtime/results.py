"""Results of a stream of inputs, in the order of the inputs, for ``for`` and ``async for``.

1. A separate thread reads and submits the inputs; the reader of the results waits for the oldest one.
2. Inputs are read only a window ahead, so that neither a slow reader of results nor a slow pipeline makes them pile up.
   Reading ends when the iterator is closed or garbage-collected.
3. An exception of the source of inputs is raised after the results of all inputs before it.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Callable, Literal, Union

from graphcut.errors import GraphcutError
from graphcut.runtime.interpreter import AnyArray

Outputs = tuple[AnyArray, ...]
Submit = Callable[[object], "Future[Outputs]"]
OneResult = Union[Outputs, BaseException]
_LOOK_SECONDS = 1.0


class _Feed:
    """State shared by the reading thread and the reader of results."""

    def __init__(self, window: int, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.window = window
        self.loop = loop
        self.pending: deque[Future[Outputs]] = deque()
        self.changed = threading.Condition()
        self.ended = False
        self.stopped = False
        self.error: BaseException | None = None
        self.listen: Callable[[], None] = lambda: None

    def room(self) -> bool:
        """Wait until another input may be read; False if the reader has stopped."""
        with self.changed:
            while len(self.pending) >= self.window and not self._is_given_up():
                self.changed.wait(None if self.loop is None else _LOOK_SECONDS)
            return not self._is_given_up()

    def add(self, future: Future[Outputs]) -> None:
        with self.changed:
            self.pending.append(future)
            self.changed.notify_all()
        self.listen()

    def end(self, error: BaseException | None = None) -> None:
        with self.changed:
            self.ended, self.error = True, error
            self.changed.notify_all()
        self.listen()

    def stop(self) -> None:
        with self.changed:
            self.stopped = self.ended = True
            self.changed.notify_all()

    def look(self) -> None:
        """Let whoever waits look again."""
        with self.changed:
            self.changed.notify_all()

    def wait_for(self, awaited: Future[Any]) -> bool:
        """Wait until a future of the loop is done; False where it will not be, or nobody wants it any more."""
        with self.changed:
            while not awaited.done():
                if self._is_given_up():
                    return False
                self.changed.wait(_LOOK_SECONDS)
            return not awaited.cancelled()

    def _is_given_up(self) -> bool:
        """Whether nobody reads the results any more; nobody tells of a loop that is closed."""
        return self.stopped or (self.loop is not None and self.loop.is_closed())

    def oldest(self) -> Future[Outputs] | None:
        """Wait for the oldest future, which is not removed; None at the end."""
        with self.changed:
            self.changed.wait_for(lambda: self.pending or self.ended)
            return self.pending[0] if self.pending else None

    def drop_oldest(self) -> None:
        with self.changed:
            self.pending.popleft()
            self.changed.notify_all()

    def final_error(self) -> BaseException | None:
        """The exception of the source, returned once."""
        error, self.error = self.error, None
        return error


def _read(feed: _Feed, source: Iterator[object], submit: Submit, closed: type[GraphcutError]) -> None:
    """Read and submit inputs until they end; the body of the reading thread."""
    try:
        while feed.room():
            try:
                inputs = next(source)
            except StopIteration:
                break
            try:
                future = submit(inputs)
            except closed:
                raise
            except GraphcutError as error:  # an input that does not fit: its place among the results
                future = Future()
                future.set_exception(error)
            feed.add(future)
    except BaseException as error:  # reaches the reader (statement 3)
        feed.end(error)
    else:
        feed.end()


def _settled(feed: _Feed, future: Future[Outputs], failures: str) -> OneResult:
    """Remove a finished future from the feed and return its result; errors according to ``failures``."""
    feed.drop_oldest()
    error = future.exception()
    if error is None:
        return future.result()
    if failures == "return" and isinstance(error, GraphcutError):
        return error
    raise error


class Results(Iterator[OneResult]):
    """Iterates over the outputs of each input, in order. See :meth:`graphcut.runtime.pipeline.Pipeline.run`."""

    def __init__(
        self,
        submit: Submit,
        iterable: Iterable[object],
        window: int,
        failures: Literal["raise", "return"],
        closed: type[GraphcutError],
    ) -> None:
        self._feed = _Feed(window)
        self._failures = failures
        reader = threading.Thread(
            target=_read, args=(self._feed, iter(iterable), submit, closed), name="pipeline inputs", daemon=True
        )
        reader.start()

    def __iter__(self) -> Results:
        return self

    def __next__(self) -> OneResult:
        """The next input's outputs; with ``failures="raise"`` its error, after which the next call continues."""
        future = self._feed.oldest()
        if future is None:
            error = self._feed.final_error()
            raise StopIteration if error is None else error
        future.exception()  # waits; Ctrl-C interrupts it, and the result is kept
        return _settled(self._feed, future, self._failures)

    def close(self) -> None:
        """Read no more inputs; those in progress are finished and dropped."""
        self._feed.stop()

    def __del__(self) -> None:
        self._feed.stop()


class AsyncResults:
    """:class:`Results` for ``async for``; cancelling a wait loses nothing."""

    def __init__(
        self,
        submit: Submit,
        iterable: Iterable[object] | AsyncIterable[object],
        window: int,
        failures: Literal["raise", "return"],
        closed: type[GraphcutError],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._feed = _Feed(window, loop)
        self._failures = failures
        self._loop = loop
        self._news = asyncio.Event()
        self._feed.listen = _waker(weakref.WeakMethod(self._wake))  # whoever forgets the results forgets the feed too
        source = _bridged(iterable, loop, self._feed) if isinstance(iterable, AsyncIterable) else iter(iterable)
        reader = threading.Thread(
            target=_read, args=(self._feed, source, submit, closed), name="pipeline inputs", daemon=True
        )
        reader.start()

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: there is no reader any more
            self._loop.call_soon_threadsafe(self._news.set)

    def __aiter__(self) -> AsyncResults:
        return self

    async def __anext__(self) -> OneResult:
        """As ``Results.__next__``."""
        feed = self._feed
        while not feed.pending and not feed.ended:
            self._news.clear()
            if not feed.pending and not feed.ended:
                await self._news.wait()
        future = feed.oldest()
        if future is None:
            error = feed.final_error()
            raise StopAsyncIteration if error is None else error
        future.add_done_callback(lambda _: self._wake())
        while not future.done():
            self._news.clear()
            if not future.done():
                await self._news.wait()
        return _settled(feed, future, self._failures)

    async def aclose(self) -> None:
        """Read no more inputs."""
        self._feed.stop()

    def __del__(self) -> None:
        self._feed.stop()


def _waker(reference: weakref.WeakMethod[Callable[[], None]]) -> Callable[[], None]:
    def wake() -> None:
        method = reference()
        if method is not None:
            method()

    return wake


def _bridged(iterable: AsyncIterable[Any], loop: asyncio.AbstractEventLoop, feed: _Feed) -> Iterator[object]:
    """An asynchronous iterable read from another thread, until nobody wants it any more or the loop is closed."""
    iterator = iterable.__aiter__()

    async def follow(awaited: Future[tuple[bool, object]]) -> None:
        try:
            awaited.set_result((True, await iterator.__anext__()))
        except StopAsyncIteration:
            awaited.set_result((False, None))
        except asyncio.CancelledError:
            awaited.cancel()
            raise
        except BaseException as error:
            awaited.set_exception(error)

    tasks: list[asyncio.Task[None]] = []

    def ask(awaited: Future[tuple[bool, object]]) -> None:
        """Runs on the loop, so that a loop that ends first leaves no coroutine that nobody awaits."""
        tasks[:] = [] if feed.stopped else [loop.create_task(follow(awaited))]

    def cancel() -> None:
        for task in tasks:
            task.cancel()

    while True:
        awaited: Future[tuple[bool, object]] = Future()
        awaited.add_done_callback(lambda _: feed.look())
        try:
            loop.call_soon_threadsafe(ask, awaited)
            if not feed.wait_for(awaited):
                loop.call_soon_threadsafe(cancel)
                return
        except RuntimeError:  # the loop is closed
            return
        more, value = awaited.result()
        if not more:
            return
        yield value
