"""A small result written as every result is: ``python -m tests.crash.writer OUT`` (``--file``: one file of outputs)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from graphcut import files, staging


def main() -> None:
    """Write, in the place of what an earlier run wrote."""
    out, version = Path(sys.argv[1]), int("--older" in sys.argv)
    if "--file" in sys.argv:
        out.mkdir(exist_ok=True)
        values = {"a": np.arange(5000, dtype=np.float32) + version, "b": np.ones(3, np.int8)}
        files.write_outputs(out / "outputs.npz", values)
        files.rewrite(out / "note.txt", f"note {version}\n" * 500)
        return
    with staging.staging(out, force=True) as folder:
        for number in range(3):
            (folder / "parts" / str(number)).mkdir(parents=True)
            (folder / "parts" / str(number) / "file.bin").write_bytes(bytes([number + version]) * 20_000)
        os.link(folder / "parts" / "0" / "file.bin", folder / "again.bin")
        files.write_arrays(folder / "samples.npz", {"x": np.arange(2000, dtype=np.float32)})
        (folder / "note.txt").write_text(f"note {version}\n" * 500, encoding="utf-8")
        listed = {
            path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": files.sha256_of(path)}
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        document = {"schema_version": 1, "graphcut_version": "0", "files": listed}
        (folder / staging.MANIFEST).write_text(json.dumps(document), encoding="utf-8")
    files.rewrite(out / "note.txt", f"note {version}\n" * 500)


if __name__ == "__main__":
    main()
