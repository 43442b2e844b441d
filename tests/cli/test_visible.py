"""What files say is shown so that it cannot steer the terminal."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphcut.cli.console import Console, say
from graphcut.cli.visible import LONGEST, one_line, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\u001b[31mred\u001b[0m"),
        ("a\rb", r"a\u000db"),
        ("\x9b2J", r"\u009b2J"),
        ("file\u202egnp.exe", r"file\u202egnp.exe"),
        ("a\tb\nc", "a\tb\nc"),
        ("größer, 画像", "größer, 画像"),
    ],
)
def test_what_steers_a_terminal_is_spelt_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_json_stays_the_same_document(text: str) -> None:
    document = json.dumps({"name": text}, ensure_ascii=False)
    assert json.loads(visible(document)) == {"name": text}


def test_errors_are_one_line_of_bounded_length() -> None:
    stream = io.StringIO()
    say(stream, "a" * 100_000 + "\nend \x1b[2J")
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert len(line) <= LONGEST + 20
    assert line.startswith("aaa")
    assert line.endswith("end \\u001b[2J\n")
    assert one_line("short") == "short"


def test_results_are_shown_so_too(capsys: pytest.CaptureFixture[str]) -> None:
    Console().line("name \x1b]0;owned\x07\nsecond line")
    assert capsys.readouterr().out == "name \\u001b]0;owned\\u0007\nsecond line\n"
