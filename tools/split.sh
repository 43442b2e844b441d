#!/bin/sh
# `make split`: sets up what the model needs, then runs graphcut split. Reads MODEL, BUDGET or SEGMENTS, CALIBRATION,
# OUT and ARGS from the environment; ARGS are words for the command line.
set -eu
cd "$(dirname "$0")/.."

if [ -z "${MODEL:-}" ]; then
    echo "make split needs MODEL: a recipe ($(cd models && echo *.toml | sed 's/\.toml//g')) or a path to an .onnx file" >&2
    exit 2
fi

# A recipe's name, a recipe file, or a model file.
case $MODEL in
    *.onnx) recipe="" ;;
    *.toml) recipe=$MODEL ;;
    *) recipe=models/$MODEL.toml ;;
esac
field() { [ -f "$recipe" ] && grep -Eq "^ *$1 *= *$2" "$recipe"; }

if [ -n "$recipe" ] && field source '"keras"'; then
    sh tools/setup.sh keras
else
    sh tools/setup.sh
fi

name=${MODEL##*/}
name=${name%.onnx}
name=${name%.toml}
set -- "$MODEL" --force -o "${OUT:-out/$name}"
if [ -n "${SEGMENTS:-}" ]; then
    [ -z "${BUDGET:-}" ] || set -- "$@" --budget "$BUDGET"
    set -- "$@" --segments "$SEGMENTS"
else
    set -- "$@" --budget "${BUDGET:-7MiB}"
fi
if [ -n "${CALIBRATION:-}" ]; then
    set -- "$@" --calibration "$CALIBRATION"
elif [ -n "$recipe" ] && ! field weights '"'; then
    # A name that is no recipe comes here too; graphcut refuses it before it draws any images.
    [ ! -f "$recipe" ] || echo "$name has untrained weights, so there is no real data for it: calibrating with synthetic images (--calibration random)"
    set -- "$@" --calibration random
fi
# ARGS are meant to be split into words.
# shellcheck disable=SC2086
exec .venv/bin/python -m graphcut split "$@" ${ARGS:-}
