"""Control the garbage collector: off where it costs more than it frees, frequent where it is needed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Leave the garbage collector off inside; as a decorator, during every call.

    Analysis and planning make millions of small records and no cycles among them. Reference counts free them; looking
    for cycles took half of the time at 100,000 nodes. What is left of them counts as old afterwards, so that the next
    allocation does not look through all of it.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            gc.enable()


@contextmanager
def copies_collected() -> Iterator[None]:
    """Let the garbage collector look often at what is made inside, and not at what was there before.

    tf2onnx copies the graph, weights and all, for every optimisation; the copies are few objects in cycles, so that
    a dozen of them waited for a collection (ResNet101: 11.8 GiB and 63 s, against 4.6 GiB and 45 s).
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(1000, 2, 0)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
        gc.collect()
