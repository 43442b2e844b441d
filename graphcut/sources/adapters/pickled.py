"""Files with a Python pickle or with weights only: recognised, so that the refusal can say what to do."""

from __future__ import annotations

from typing import Final, NoReturn

from graphcut.errors import ModelError
from graphcut.progress import Report
from graphcut.sources.adapter import Request
from graphcut.sources.pt2_check import SAVE

SUFFIXES: Final = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".joblib")
_WEIGHTS: Final = (".safetensors", ".npz", ".msgpack", ".params", ".caffemodel", ".pdiparams")


class Pickled:
    """Not a usable source: always refused."""

    kind: Final = "pickle"
    what: Final = ""

    def matches(self, source: str) -> bool:
        """A name that ends as pickles and files of weights do."""
        return source.lower().endswith((*SUFFIXES, *_WEIGHTS))

    def to_onnx(self, request: Request, report: Report) -> NoReturn:
        """Refuse it.

        Raises:
            ModelError: always; the error says how to export the model.
        """
        del report
        if request.source.lower().endswith(_WEIGHTS):
            what = "contains weights only, not the architecture"
        else:
            what = "is a Python pickle, whose code would run when it is read, so graphcut does not read it"
        raise ModelError(
            f"{request.source} {what}",
            f"export the model in Python, where its code is: {SAVE}, or pass package.module:factory",
        )


ADAPTER = Pickled()
