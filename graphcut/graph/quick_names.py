"""Names of the tensors of an ONNX file, read quickly and unchecked: what a shell offers for ``--cuts``."""

from __future__ import annotations

from pathlib import Path

MOST_BYTES = 2**28
"""Larger files take too long while somebody waits for the shell."""


def tensor_names(path: Path) -> tuple[str, ...]:
    """Return the first output of each node, in the file's order; none where the file is large or cannot be read."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types

    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return ()
        proto = onnx.load_model_from_string(path.read_bytes())
    except (OSError, DecodeError, ValueError):
        return ()
    return tuple(dict.fromkeys(node.output[0] for node in proto.graph.node if node.output and node.output[0]))
