"""``graphcut compile``: run edgetpu_compiler on a split or a file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphcut.cli.console import Console
from graphcut.codec import to_json
from graphcut.errors import CompilationError, OutputError, UsageError
from graphcut.settings import names, positive

if TYPE_CHECKING:
    from graphcut.edgetpu.compiler import Compiler

EXAMPLES = (
    "graphcut compile OUT",
    "graphcut compile model_int8.tflite -o compiled --compiler docker:edgetpu_compiler",
)


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "compile",
        help="compile a split for the Edge TPU and check the result",
        description="Run edgetpu_compiler on every segment and tail of a split (or on one int8 file), keep its logs, "
        "read the compiled files, and show what streams. Exit code 0: every segment runs on the chip and streams "
        "nothing; "
        "11: otherwise.",
    )
    parser.add_argument("path", metavar="OUT|FILE.tflite", type=Path, help="a folder of `graphcut split`, or a file")
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, help="folder for the results of one FILE (default: next to it)"
    )
    add_compiler(parser)
    parser.add_argument("--jobs", metavar="N", type=positive, default=2, help="files to compile at a time (default: 2)")
    own = parser.add_argument_group("the compiler's own options")
    own.add_argument("-a", "--enable-multiple-subgraphs", action="store_true", help="several subgraphs in a file")
    own.add_argument(
        "-d", "--search-delegate", action="store_true", help="search where the part on the chip can end, if all fails"
    )
    own.add_argument("-k", "--delegate-search-step", metavar="N", type=positive, help="operators a step of -d")
    own.add_argument(
        "-i", "--intermediate-tensors", metavar="A,B", type=names, default=(), help="end the part on the chip here"
    )
    own.add_argument("-m", "--min-runtime-version", metavar="N", type=positive, help="oldest runtime that is to run it")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def add_compiler(parser: ArgumentParser) -> None:
    """Add the options for the compiler and its time limit."""
    parser.add_argument(
        "--compiler",
        metavar="PATH|docker:IMAGE",
        help="edgetpu_compiler, or a container image that contains it (default: the one on PATH)",
    )
    parser.add_argument(
        "--compile-timeout",
        metavar="S",
        type=positive,
        default=180,
        help="time limit for one file in seconds (default: 180)",
    )


def _found(arguments: Namespace) -> Compiler:
    """Find the compiler, with the options that it is to be given."""
    from graphcut.edgetpu import compiler

    given = compiler.options_for(
        multiple_subgraphs=arguments.enable_multiple_subgraphs,
        search_delegate=arguments.search_delegate,
        delegate_search_step=arguments.delegate_search_step,
        intermediate_tensors=arguments.intermediate_tensors,
        min_runtime_version=arguments.min_runtime_version,
    )
    return replace(compiler.find(arguments.compiler), options=given)


def run(arguments: Namespace, console: Console) -> int:
    """Compile a split or a file."""
    return _split(arguments, console) if arguments.path.is_dir() else _file(arguments, console)


def _split(arguments: Namespace, console: Console) -> int:
    from graphcut.deploy.compilation import compile_split, int8_files, record
    from graphcut.report import edgetpu, note

    if arguments.output is not None:
        raise UsageError("--output is for one FILE", "a split is compiled in its own folder")
    int8_files(arguments.path)
    found = _found(arguments)
    made = compile_split(
        arguments.path, found, seconds=arguments.compile_timeout, jobs=arguments.jobs, report=console.report
    )
    entered = record(made)
    note.write(arguments.path)
    console.result(edgetpu.compiled_split_text(entered), {"folder": str(arguments.path), **to_json(entered)})
    if not entered.clean:
        way_out = "split again with a smaller --budget, or other --cuts" if made.streaming else ""
        raise CompilationError(entered.trouble, way_out)
    return 0


def _file(arguments: Namespace, console: Console) -> int:
    from graphcut.deploy.compilation import file_trouble
    from graphcut.edgetpu import compiler, layers_of_file
    from graphcut.edgetpu.failures import CompileFailure
    from graphcut.report import edgetpu
    from graphcut.result.compiled_entries import entry_of

    layers_of_file.uncompiled(arguments.path)
    found = _found(arguments)
    folder = arguments.output or arguments.path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be created ({error.strerror or error})", "choose another --output"
        ) from error
    (made,) = compiler.compile_files(
        found, [arguments.path], folder, seconds=arguments.compile_timeout, report=console.report
    )
    if isinstance(made, CompileFailure):
        raise CompilationError(str(made))
    entry = to_json(entry_of(made), without=("folders",))
    console.result(edgetpu.result_text(made, str(made.path)), {"file": str(made.path), **entry})
    trouble = file_trouble(made, str(made.path))
    if trouble:
        raise CompilationError(trouble, "the file is written, but streaming makes it slower")
    return 0
