"""``python -m graphcut`` is the console script ``graphcut``."""

from __future__ import annotations

from graphcut.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
