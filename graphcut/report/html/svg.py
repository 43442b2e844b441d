"""SVG elements as text, and what every figure shares: its frame, scales and the rules for text.

1. Names in a model file are text of strangers: every text and attribute is escaped here, and characters that show
   nothing or turn the direction of writing are written as ``\\u202e``.
2. Figures carry no colours: their elements have classes, and the style sheet gives these a colour for light, dark and
   paper. Presentation that has to survive a download is copied by the page's script.
3. Every figure has a ``title`` and a ``desc``, which assistive technology reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from graphcut.units import GIB, KIB, MIB

WIDTH = 880
"""Of every figure, in its own units: a text of 12 units is 10 to 14 pixels high on screens from 750 pixels."""
CHARACTER = 7.3
"""Width of a character of a name in a figure, which is set in 12 units of a monospaced face."""

Scale = Callable[[float], float]


def shown(text: str, longest: int = 0) -> str:
    """Make invisible characters visible (statement 1), and shorten in the middle to ``longest`` where that is given."""
    visible = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
    if longest and len(visible) > longest:
        head = (longest - 1) // 2
        return f"{visible[:head]}…{visible[len(visible) - (longest - 1 - head) :]}"
    return visible


def tag(name: str, *inside: str, **attributes: str | float | None) -> str:
    """Write one element.

    Args:
        name: of the element.
        inside: what it holds, elements or text that is escaped already.
        attributes: by name; a trailing "_" is dropped and other "_" become "-"; None leaves one out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{written}/>" if not inside else f"<{name}{written}>{''.join(inside)}</{name}>"


def text(x: float, y: float, words: str, class_: str = "label", anchor: str | None = None) -> str:
    """Write a line of text; ``anchor`` is "middle" or "end" where it does not begin at ``x``."""
    return tag("text", escape(shown(words)), x=x, y=y, class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    """Draw a straight line."""
    return tag("path", d=f"M{_value(x1)} {_value(y1)}L{_value(x2)} {_value(y2)}", class_=class_)


def rect(x: float, y: float, width: float, height: float, class_: str, title: str = "") -> str:
    """Draw a rectangle, at least half a unit wide and high; ``title`` is what hovering over it shows."""
    inside = (tag("title", escape(shown(title))),) if title else ()
    return tag("rect", *inside, x=x, y=y, width=max(width, 0.5), height=max(height, 0.5), class_=class_)


def figure(name: str, height: float, title: str, description: str, *inside: str) -> str:
    """Put elements into a figure.

    Args:
        name: unique on the page.
        height: in its own units.
        title, description: what it shows, and what it says.
        inside: its elements.
    """
    return tag(
        "svg",
        tag("title", escape(shown(title)), id=f"{name}-title"),
        tag("desc", escape(shown(description)), id=f"{name}-desc"),
        *inside,
        xmlns="http://www.w3.org/2000/svg",
        id=name,
        viewBox=f"0 0 {WIDTH} {_value(height)}",
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
    )


def linear(low: float, high: float, start: float, stop: float) -> Scale:
    """Map values from ``low``..``high`` to places from ``start`` to ``stop``."""
    span = (high - low) or 1.0
    return lambda value: start + (stop - start) * (value - low) / span


def logarithmic(low: float, high: float, start: float, stop: float) -> Scale:
    """Do the same by the values' logarithms; all above zero."""
    inner = linear(math.log(low), math.log(high), start, stop)
    return lambda value: inner(math.log(value))


def ticks(high: float, count: int = 5) -> list[float]:
    """Choose round numbers from 0 to at most ``high``, about ``count`` of them.

    >>> ticks(7.3)
    [0.0, 2.0, 4.0, 6.0]
    """
    if high <= 0:
        return [0.0]
    step = _round_step(high / count)
    return [step * number for number in range(int(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Choose numbers of the series 1, 2, 5, 10 within ``low``..``high``."""
    first = math.floor(math.log10(low))
    last = math.ceil(math.log10(high))
    every = [digit * 10.0**power for power in range(first, last + 1) for digit in (1, 2, 5)]
    return [each for each in every if low <= each <= high]


def byte_ticks(high: float, count: int = 4) -> list[float]:
    """Choose round sizes from 0 to at most ``high`` bytes."""
    unit = GIB if high >= GIB else MIB if high >= MIB else KIB if high >= KIB else 1
    return [each * unit for each in ticks(high / unit, count)]


def byte_label(size: float) -> str:
    """Write the size at a tick: "2 MiB", "512 KiB"."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size:g} B" if size else "0"


def lanes(spans: Sequence[tuple[float, float]], gap: float = 8.0) -> list[int]:
    """Give each span (start, stop), by rising start, the first lane in which it overlaps none before it."""
    ends: list[float] = []
    chosen = []
    for start, stop in spans:
        lane = next((number for number, end in enumerate(ends) if end + gap <= start), len(ends))
        if lane == len(ends):
            ends.append(stop)
        else:
            ends[lane] = stop
        chosen.append(lane)
    return chosen


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough * 0.999)


def _value(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
