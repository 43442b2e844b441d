"""``graphcut cache``: list or clear the cache."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

from graphcut.cli.console import Console

EXAMPLES = ("graphcut cache list", "graphcut cache clear", "graphcut cache list --cache DIR --json")


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "cache",
        help="list the contents of the cache, or remove them",
        description="List the contents of the cache by kind, or remove all of them. graphcut recreates removed "
        "entries when it needs them.",
    )
    parser.add_argument("what", metavar="list|clear", choices=("list", "clear"), help="list or remove the contents")
    parser.add_argument("--cache", metavar="DIR", type=Path, help="folder of the cache (default: ~/.cache/graphcut)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """List or clear."""
    from graphcut import cache_folder
    from graphcut.report import tables
    from graphcut.units import format_bytes

    held = cache_folder.contents(arguments.cache)
    folder, total = cache_folder.root(arguments.cache), sum(each.total_bytes for each in held)
    document = {"folder": str(folder), "total_bytes": total, "kinds": [asdict(each) for each in held]}
    if arguments.what == "clear":
        cache_folder.clear(arguments.cache)
        files = sum(each.files for each in held)
        console.result(f"removed {files} files, {format_bytes(total)}, from {folder}", document)
        return 0
    rows = [
        (
            each.kind,
            each.what,
            str(each.files),
            format_bytes(each.total_bytes),
            "" if each.last_used is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(each.last_used)),
        )
        for each in held
    ]
    headers = ("kind", "what it is", "files", "size", "last used")
    shown = tables.table(headers, rows, right=("files", "size"))
    console.result([shown, "", f"{format_bytes(total)} in {folder}"], document)
    return 0
