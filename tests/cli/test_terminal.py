"""Tables and lines set for a terminal: its width, its colours, and names that stay names."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from graphcut.cli import main
from graphcut.cli.terminal import Terminal, shortened, widths_within
from graphcut.report.tables import table
from tests.support import nets

ROWS = [
    ("1", "model/backbone/stage_1/block_1/expanded_convolution/depthwise/output", "6.337 MiB", "streams a layer"),
    ("12", "input", "12.0 KiB", "stays on the CPU because its operator has no implementation on the chip"),
]
HEADERS = ("segment", "to", "int8 file (predicted)", "why")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def set_for(width: int, rows: list[tuple[str, ...]] = ROWS) -> list[str]:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    Terminal(stream, width).table(table(HEADERS, rows, right=("segment", "int8 file (predicted)")))
    stream.flush()
    stream.seek(0)
    return stream.read().splitlines()


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(width: int) -> None:
    lines = set_for(width)
    assert max(map(cell_len, lines)) <= width
    assert any("6.337 MiB" in line for line in lines)
    assert "\x1b" not in "".join(lines)


def test_long_names_are_shortened_in_the_middle_and_sentences_wrap_at_spaces() -> None:
    lines = set_for(80)
    assert any(re.search(r"model/\S+…\S+output", line) for line in lines)
    words = " ".join(lines).split()
    for word in ("implementation", "because", "(predicted)"):
        assert word in words


def test_a_wide_terminal_shortens_nothing() -> None:
    lines = set_for(200)
    assert len(lines) == 4
    assert ROWS[0][1] in lines[2]


def test_a_narrow_terminal_gets_a_line_for_each_cell() -> None:
    assert set_for(30)[0] == "segment                1"


@given(st.integers(1, 120), st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), max_size=4), st.booleans())
def test_widths_fit_or_there_are_none(room: int, rows: list[tuple[str, str]], flush: bool) -> None:
    widths = widths_within(room, ("a header", "b"), rows, (flush, False))
    assert not widths or sum(widths) + 2 <= room


@given(st.text(), st.integers(4, 40))
def test_shortened_words_fit(text: str, width: int) -> None:
    assert all(cell_len(word) <= width for word in shortened(text, width).split(" "))


def test_markup_in_a_name_is_text() -> None:
    name = "[red]name[/red] :smile:"
    assert name in set_for(80, [("1", name, "2", "")])[-1]


def test_lines_wrap_at_spaces_under_their_beginning() -> None:
    stream = io.StringIO()
    Terminal(stream, 30).line("  ! one finding that is longer than the terminal is wide")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "  ! one finding that is"
    assert all(line.startswith("    ") and len(line) <= 30 for line in lines[1:])


def test_verdicts_are_coloured_and_names_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    terminal = Terminal(stream, 80)
    for line in ("PASSED on 3 samples", "WEAK: a reason", "  exact: NO", "PASSEDx (onnx)", "a layer named FAILED"):
        terminal.line(line)
    passed, weak, exact, name, layer = stream.getvalue().splitlines()
    assert passed == "\x1b[1;32mPASSED\x1b[0m on 3 samples"
    assert weak == "\x1b[1;33mWEAK\x1b[0m: a reason"
    assert exact == "  exact: \x1b[1;31mNO\x1b[0m"
    assert name + layer == "PASSEDx (onnx)a layer named FAILED"


def test_width_sets_results_in_a_pipe_too(
    capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:

    model = str(nets.saved(nets.residual(), tmp_path_factory.mktemp("model")))
    assert main(["inspect", model, "-q", "--width", "60"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60
    assert main(["--width", "60", "plan", model, "-q", "--segments", "2"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60
    assert main(["plan", model, "-q", "--segments", "2"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) > 60
