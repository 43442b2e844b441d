"""``graphcut inspect``: show where a model can be cut, or the contents of a split or a compiled file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from graphcut.cli import options
from graphcut.cli.console import Console
from graphcut.codec import to_json
from graphcut.errors import UsageError, VerificationError
from graphcut.settings import SplitSettings

EXAMPLES = (
    "graphcut inspect model.onnx",
    "graphcut inspect model.onnx --why conv4_block4_out",
    "graphcut inspect OUT",
    "graphcut inspect seg1_int8_edgetpu.tflite --against seg1_int8.tflite --bytes",
)


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "inspect",
        help="show where a model can be cut, or the contents of a split or a file",
        description="Show every place where a model can be cut, with the bytes on both sides; or the contents of a "
        "split; "
        "or the contents of a file compiled for the Edge TPU, without compiler or device.",
    )
    options.add_model(
        parser,
        f"{options.SOURCES}; or a folder that `graphcut split` wrote, or an _edgetpu.tflite file",
    )
    options.add_settings(parser, SplitSettings, "reuse")
    parser.add_argument(
        "--against",
        metavar="A.tflite",
        type=Path,
        help="original of a compiled file: show where each layer is, and its size",
    )
    parser.add_argument(
        "--bytes",
        action="store_true",
        help="with --against: compare the compiled parameters byte for byte with the original weights; exit code 7 if "
        "they differ",
    )
    parser.add_argument("--why", metavar="TENSOR", help="explain why a tensor or layer can be cut at, or not")
    parser.add_argument(
        "--passes", action="store_true", help="show the rewrites made by loading, and their numeric error"
    )
    options.add_seams(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Show a model or a split."""
    path = Path(arguments.model)
    if arguments.bytes and arguments.against is None:
        raise UsageError("--bytes needs the file that a compiled one was made from", "add --against A.tflite")
    if path.suffix == ".tflite" and (arguments.against is not None or _is_compiled(path)):
        return _show_compiled(arguments, console)
    if arguments.bytes:
        raise UsageError("--bytes needs a compiled file and the one it was made from", "add --against A.tflite")
    if arguments.against is not None:
        raise UsageError("--against needs a compiled file", f"{arguments.model} is not a .tflite file")
    if path.is_dir() and not (path / "saved_model.pb").is_file():
        return _show_split(arguments, console)
    return _show_model(arguments, console)


def _is_compiled(path: Path) -> bool:
    from graphcut.edgetpu import compiled
    from graphcut.tflite import checked

    return compiled.is_compiled(checked.read(checked.read_bytes(path), str(path)))


def _show_compiled(arguments: Namespace, console: Console) -> int:
    from graphcut.edgetpu import byte_proof, compare_compiled, compiled
    from graphcut.report import edgetpu

    path = Path(arguments.model)
    if arguments.against is None:
        read = compiled.read(path)
        console.result(edgetpu.compiled_text(read, str(path)), to_json(read))
        return 0
    found = compare_compiled.read(path, arguments.against)
    document = {**to_json(found.compiled), "against": to_json(found)}
    shown = [*edgetpu.compiled_text(found.compiled, str(path)), "", *edgetpu.against_text(found)]
    if not arguments.bytes:
        console.result(shown, document)
        return 0
    proof = byte_proof.prove(path, arguments.against)
    console.result([*shown, "", *edgetpu.proof_text(proof)], {**document, "bytes": to_json(proof)})
    return VerificationError.exit_code if proof.findings else 0


def _show_model(arguments: Namespace, console: Console) -> int:
    from graphcut.analysis import candidates
    from graphcut.report import tables

    model = options.load_model(arguments, console)
    min_rank = arguments.min_rank or 4
    if arguments.why is not None:
        sentence = candidates.why(model.graph, arguments.why, min_rank=min_rank)
        console.result(sentence, {"tensor": arguments.why, "why": sentence})
        return 0
    most = arguments.max_seam_tensors
    analysis = candidates.analyse(model.graph, min_rank=min_rank, max_seam_tensors=most)
    document = {
        "model": {
            **to_json(model.source),
            "inputs": [to_json(each) for each in model.inputs],
        },
        **to_json(analysis),
        "notes": list(model.notes),
        "passes": [to_json(each) for each in model.passes],
    }
    if arguments.passes:
        shown = tables.passes_text(model.passes)
    else:
        shown = [tables.source_text(model.source, model.inputs), *tables.analysis_text(analysis)]
    console.result(shown, document)
    return 0


def _show_split(arguments: Namespace, console: Console) -> int:
    from graphcut.report import note
    from graphcut.result import manifest

    if arguments.why is not None or arguments.passes:
        raise UsageError("--why and --passes need a model", f"{arguments.model} is a folder")
    opened = manifest.read(Path(arguments.model))
    console.result(note.note(opened), opened.document)
    return 0
