#!/bin/sh
# Sets up graphcut in .venv with the extras passed as arguments: sh tools/setup.sh [dev] [keras] [torch]
# Fast if there is nothing to do: the environment's own Python reads its stamp.
set -eu
cd "$(dirname "$0")/.."
if [ -x .venv/bin/python ] && .venv/bin/python -c '' 2>/dev/null; then
    .venv/bin/python -I tools/setup.py --check "$@" && exit 0
fi
python=$(sh tools/find_python.sh)
exec "$python" -I tools/setup.py "$@"
