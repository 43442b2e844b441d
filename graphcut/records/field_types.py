"""Types of fields that several records have: numbers with their ranges, shapes, hashes."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt

from graphcut.record_types import DECIBELS, AtMost, Between, Pattern

Shape = tuple[int, ...]
Count = Annotated[int, Between(0, 2**31)]
Number = Annotated[int, Between(1, 2**31)]
Bytes = Annotated[int, Between(0, 2**53)]
Decibels = Annotated[float, DECIBELS]
Sha256 = Annotated[str, Pattern("^[0-9a-f]{64}$")]
Dimensions = Annotated[tuple[Number, ...], AtMost(8)]
Layout = Literal["NCHW", "NHWC", "other"]
Array = npt.NDArray[np.float32]
