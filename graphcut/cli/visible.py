"""Make text from files safe for a terminal: control characters are shown as escapes.

1. Control characters (C0 and C1), and the marks that turn the direction of text, are written as escapes: a name could
   recolour, overwrite or hide other text.
2. Tabulators and line breaks of results stay. The escapes are those of JSON strings, so that a JSON document stays the
   same document.
3. A line for errors is cut in its middle where it is longer than ``LONGEST``: names in a file have no limit.
"""

from __future__ import annotations

import re

LONGEST = 2000
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """The text with control characters as escapes (statements 1 and 2)."""
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    """The text as one visible line of bounded length (statement 3)."""
    line = visible(" ".join(text.splitlines()))
    if len(line) <= LONGEST:
        return line
    half = LONGEST // 2 - 20
    return f"{line[:half]} [...{len(line) - 2 * half} characters...] {line[-half:]}"
