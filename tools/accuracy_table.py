"""Print how far int8 is from float on held-out pictures, model by model and effort by effort, as a Markdown table.

    python -m tools.accuracy_table MODEL CALIBRATION HELD_OUT --mean 127.5 --std 127.5 [--colour bgr]

MODEL is what ``graphcut split`` takes; CALIBRATION and HELD_OUT are folders of pictures. Nothing is learnt from
HELD_OUT.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import graphcut
from graphcut.records import Preprocessing
from graphcut.settings import Effort

EFFORTS: tuple[Effort, ...] = ("fast", "normal", "high")


def main() -> None:
    """Split with each effort and compare with float on the held-out pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("calibration", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--mean", type=float, nargs="+", required=True)
    parser.add_argument("--std", type=float, nargs="+", required=True)
    parser.add_argument("--colour", choices=("rgb", "bgr"), default="rgb")
    parser.add_argument("--input", action="append", default=[], metavar="NAME:1x3x224x224")
    parser.add_argument("--efforts", nargs="+", choices=EFFORTS, default=EFFORTS[:2])
    arguments = parser.parse_args()
    shapes = {name: [int(size) for size in shape.split("x")] for name, shape in (i.split(":") for i in arguments.input)}
    model = graphcut.load(arguments.model, input_shapes=shapes)
    pixels = Preprocessing(mean=tuple(arguments.mean), std=tuple(arguments.std), colour=arguments.colour)
    print("| effort | output | dB, held out | top-1 as in float |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for effort in arguments.efforts:
            out = Path(folder) / effort
            made = graphcut.split(
                model, calibration=arguments.calibration, out=out, preprocessing=pixels, effort=effort
            )
            proved = made.verify(calibration=arguments.held_out)
            for output, decibels in proved.sqnr_db.items():
                top1 = "" if proved.top1_agreement is None else f"{proved.top1_agreement:.0%}"
                print(f"| {effort} | {output} | {decibels:.1f} | {top1} |", flush=True)


if __name__ == "__main__":
    main()
