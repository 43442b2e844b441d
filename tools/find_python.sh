#!/bin/sh
# Prints the path of a Python that graphcut can be set up with, or says on stderr what is missing and exits 1.
#
# 1. Wanted: 3.12 or 3.13 (pyproject.toml says why), with venv and ensurepip, on a 64-bit system.
# 2. Every candidate is tried by running it: a python3.12 on PATH may be a version manager's shim that only fails
#    when it is run, and Debian's python3 comes without ensurepip.
# 3. PYTHON=... names the only candidate.
#
# Order: PATH, what version managers on PATH keep beside their shims, pyenv, uv, asdf, mise, Homebrew, /opt, conda.

found=""

probe='
import struct, sys
if not (3, 12) <= sys.version_info[:2] < (3, 14):
    print("is %d.%d.%d" % sys.version_info[:3]); sys.exit(3)
try:
    import ensurepip, ssl, venv
except ImportError as error:
    print("is %d.%d but lacks the module %s" % (sys.version_info[0], sys.version_info[1], error.name)); sys.exit(4)
if struct.calcsize("P") != 8:
    print("is a 32-bit build"); sys.exit(5)
print(sys.executable)
'

note() { found="$found
  $1"; }

# Prints the real path and leaves the program if $1 serves; otherwise notes why not.
try() {
    answer=$("$1" -c "$probe" 2>/dev/null)
    case $? in
        0) printf '%s\n' "$answer"; exit 0 ;;
        3 | 5) note "$1 $answer" ;;
        4) note "$1 $answer (Debian and Ubuntu: apt-get install python3.12-venv)" ;;
        *) note "$1 fails when it is run (a version manager's shim?)" ;;
    esac
}

complain() {
    {
        echo "graphcut needs Python 3.12 or 3.13 with venv, and found none."
        if [ -n "$found" ]; then echo "Tried:$found"; else echo "Tried: no python of any version was found."; fi
        echo "Install one: apt-get install python3.12 python3.12-venv | brew install python@3.12 | pyenv install 3.12 | uv python install 3.12"
        echo "or name one: make PYTHON=/path/to/python3.12 ..."
    } >&2
    exit 1
}

if [ -n "${PYTHON:-}" ]; then
    try "$PYTHON"
    complain
fi

for name in python3.12 python3.13 python3 python; do
    path=$(command -v "$name" 2>/dev/null) && try "$path"
done

# A manager's folder need not lie in this HOME: sudo and env -i change HOME, and PATH still has the shims.
beside_shims() {
    old_ifs=$IFS
    IFS=:
    for folder in $PATH; do
        IFS=$old_ifs
        case $folder in
            */shims)
                for path in "${folder%/shims}"/versions/3.1[23]*/bin/python3 \
                    "${folder%/shims}"/installs/python/3.1[23]*/bin/python3; do
                    [ -x "$path" ] && try "$path"
                done
                ;;
        esac
        IFS=:
    done
    IFS=$old_ifs
}
beside_shims

home=${HOME:-/nonexistent}
for pattern in \
    "${PYENV_ROOT:-$home/.pyenv}/versions/3.1[23]*/bin/python3" \
    "$home/.pyenv/versions/3.1[23]*/bin/python3" \
    "${UV_PYTHON_INSTALL_DIR:-${XDG_DATA_HOME:-$home/.local/share}/uv/python}/cpython-3.1[23]*/bin/python3" \
    "${ASDF_DATA_DIR:-$home/.asdf}/installs/python/3.1[23]*/bin/python3" \
    "${MISE_DATA_DIR:-${XDG_DATA_HOME:-$home/.local/share}/mise}/installs/python/3.1[23]*/bin/python3" \
    "$home/.local/bin/python3.1[23]" \
    "/usr/local/bin/python3.1[23]" \
    "/opt/homebrew/bin/python3.1[23]" \
    "/opt/python*/bin/python3" \
    "/opt/python/*/bin/python3" \
    "/opt/*/bin/python3.1[23]" \
    "${CONDA_PREFIX:-/nonexistent}/bin/python3" \
    "$home/*conda3/bin/python3" "$home/*forge*/bin/python3" "/opt/*conda*/bin/python3" \
    "$home/*conda3/envs/*/bin/python3" "$home/*forge*/envs/*/bin/python3" "/opt/*conda*/envs/*/bin/python3"; do
    # Expand the pattern but keep spaces in paths: globbing without field splitting.
    old_ifs=$IFS
    IFS=''
    for path in $pattern; do
        IFS=$old_ifs
        [ -x "$path" ] && try "$path"
        IFS=''
    done
    IFS=$old_ifs
done

complain
