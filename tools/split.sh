#!/bin/sh
# `make split`: sets up what the model needs, then runs graphcut split. Reads MODEL, BUDGET or SEGMENTS, CALIBRATION,
# OUT and ARGS from the environment; ARGS are words for the command line.
set -eu
cd "$(dirname "$0")/.."

if [ -z "${MODEL:-}" ]; then
    echo "make split needs MODEL: a recipe ($(cd models && echo *.toml | sed 's/\.toml//g')), a file (.onnx, .keras, .h5, .tflite, .pt2), a SavedModel folder or package.module:factory" >&2
    exit 2
fi

# A recipe's name, a recipe file, or a model of another source: what it needs to be read, and its name.
recipe="" extra=""
case $MODEL in
    *.onnx) ;;
    *.keras | *.h5 | *.hdf5 | *.tflite) extra=keras ;;
    *.pt2) extra=torch ;;
    *.pt | *.pth | *.bin | *.ckpt | *.pkl) ;;
    *.toml) recipe=$MODEL ;;
    *:*) extra=torch ;;
    *) if [ -f "$MODEL/saved_model.pb" ]; then extra=keras; else recipe=models/$MODEL.toml; fi ;;
esac
field() { [ -f "$recipe" ] && grep -Eq "^ *$1 *= *$2" "$recipe"; }
if [ -n "$recipe" ] && field source '"keras"'; then
    extra=keras
fi
# An extra is one word, or none.
# shellcheck disable=SC2086
sh tools/setup.sh $extra

name=${MODEL%/}
name=${name##*/}
name=${name##*:}
for ending in onnx keras h5 hdf5 tflite pt2 toml; do
    name=${name%."$ending"}
done
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
