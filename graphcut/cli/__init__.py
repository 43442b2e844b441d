"""The command line: ``graphcut VERB ...``.

1. Results go to stdout, progress and errors to stderr.
2. A user's error is one line, ``graphcut: error: ...``, with the exit code of its class (errors.py); 2 for wrong
   options too. The code is 130 after Ctrl-C, 143 after SIGTERM, 141 if stdout was closed. Anything else is a bug and
   keeps its traceback.
3. Each verb has a module: ``add`` declares its options, ``run`` does it and returns the exit code.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from argparse import SUPPRESS
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any

from graphcut.cli import (
    bench,
    bundle,
    cache_verb,
    check,
    cluster,
    compile,
    completion,
    cost,
    diagnose,
    doctor,
    evaluate,
    export,
    extract,
    inspect,
    plan,
    report,
    run,
    simulate,
    split,
    verify,
    view,
    zoo,
)
from graphcut.cli.console import Console, forget, say
from graphcut.cli.job_file import JobParser
from graphcut.cli.options import Parser
from graphcut.errors import GraphcutError
from graphcut.settings import positive

_VERBS = {
    "Model": (inspect, plan, split, extract, export),
    "Result": (verify, diagnose, evaluate, report, run, view),
    "Device": (check, cost, compile, simulate, bench, bundle, doctor),
    "Several": (zoo, cluster),
    "This machine": (cache_verb, completion),
}
"""Every verb, under the heading that the help shows it under. Its module has ``EXAMPLES`` for the help."""
_CLOSED_PIPE = 128 + signal.SIGPIPE


class _StopSignal(BaseException):
    """The process was asked to end; as with Ctrl-C, everything is cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments after the program's name; None for those of the process.

    Returns:
        The exit code.
    """
    _open_streams()
    try:
        with _stop_signals():
            return _run(argv)
    except GraphcutError as error:
        say(sys.stderr, f"graphcut: error: {error.text}")
        return error.exit_code
    except KeyboardInterrupt:
        say(sys.stderr, "graphcut: interrupted, nothing was written")
        return 128 + signal.SIGINT
    except _StopSignal as error:
        say(sys.stderr, f"graphcut: stopped by {error}, nothing was written")
        return 128 + error.number
    except BrokenPipeError:
        forget(sys.stdout)
        return _CLOSED_PIPE
    except SystemExit as end:  # --help
        return end.code if isinstance(end.code, int) else 0


def _open_streams() -> None:
    """Replace streams that the caller closed, and characters that they cannot show."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.TextIOWrapper(io.FileIO(os.devnull, "w"), encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding lacks


def _run(argv: Sequence[str] | None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.version:
        from graphcut.versions import graphcut_version

        say(sys.stdout, f"graphcut {graphcut_version()}")
        return 0
    if arguments.verb is None:
        parser.print_help(sys.stderr)
        return 2
    with Console(quiet=arguments.quiet, as_json=getattr(arguments, "json", False), width=arguments.width) as console:
        return int(arguments.run(arguments, console))


def _parser() -> Parser:
    parser = Parser(
        prog="graphcut",
        usage="graphcut VERB ... [-q] [--width N] [--json]",
        description="Split a CNN that is too large for an edge accelerator into int8 segments that fit, "
        "and prove that they compute the same.",
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    _add_common(parser)
    parser.set_defaults(verb=None)
    verbs = parser.add_subparsers(metavar="VERB", parser_class=JobParser, help=SUPPRESS, prog="graphcut")
    for module in (module for modules in _VERBS.values() for module in modules):
        name = _name(module)
        added = module.add(verbs)
        _add_common(added, default=SUPPRESS)
        added.epilog = "\n".join(["examples:", *(f"  {example}" for example in module.EXAMPLES)])
        added.set_defaults(verb=name, run=module.run, parser=parser)
    helps = {action.dest: action.help for action in verbs._choices_actions}
    lines = [
        line
        for group, modules in _VERBS.items()
        for line in (f"{group}:", *(f"  {_name(each):<10} {helps[_name(each)]}" for each in modules), "")
    ]
    parser.epilog = "\n".join([*lines, "`graphcut VERB --help` explains a verb, with examples."])
    return parser


def _name(module: ModuleType) -> str:
    """The verb of a module: its file's name, without ``_verb`` where another part has a file of that name."""
    return module.__name__.rpartition(".")[2].removesuffix("_verb")


def _add_common(parser: Parser, **default: Any) -> None:
    """Add what may stand before or after the verb."""
    parser.add_argument("-q", "--quiet", action="store_true", help="show only results and errors", **default)
    parser.add_argument(
        "--width",
        metavar="N",
        type=positive,
        help="set results for N columns (default: the terminal's width; no limit in files and pipes)",
        **default,
    )


@contextmanager
def _stop_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into exceptions, as SIGINT is one; only the main thread may."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise _StopSignal(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
