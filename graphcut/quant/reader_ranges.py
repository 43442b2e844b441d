"""Choose the range of an activation by the error of what reads it.

1. The error of an activation itself says little: SILU ignores what is far below 0, a convolution may ignore a channel
   that holds the largest values. So an activation is rounded to the int8 of a candidate range, and the noise of the
   operators behind it is compared with their signal (variance), in decibels. The operators up to the next weighted one
   on each path count as what reads it, at most ``DEPTH`` in a row; activations between them are rounded to their own
   int8.
2. Activations are visited from the last to the first. So an activation before a SILU whose result is clipped already
   does not need the values that are clipped later.
3. Candidates leave out shares of the values at the low and the high end independently: first the same share at both
   ends, then one end after the other.
4. The float file runs once on a few samples. From each large map, ``TILES`` x ``TILES`` tiles are taken. The tiles of
   all samples are one batch for the operators that read it. An operator that does not run on tiles (RESHAPE) ends the
   path before it.

Deterministic. Cost: about twenty runs of each operator on the tiles. The idea of judging a range by the output of the
layer that reads it: Banner et al., "Post training 4-bit quantization of convolutional networks", arXiv 1810.05723;
Wu et al., "EasyQuant", arXiv 2006.16669.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphcut.quant.clipping import Range, scale_of
from graphcut.quant.ranges import NOTHING
from graphcut.runtime.litert import Runner
from graphcut.tflite import edit, schema
from graphcut.tflite.scales import Scale

SAMPLES = 4
TILES = 3
TILE = 8
DEPTH = 6
LEAST_NOISE = 1e-9

_WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})
_ON_TILES = _WEIGHTED | frozenset(
    {"ADD", "SUB", "MUL", "DIV", "HARD_SWISH", "LOGISTIC", "TANH", "RELU", "RELU6", "RELU_N1_TO_1", "LEAKY_RELU"}
    | {"PRELU", "ABS", "NEG", "EXP", "SQRT", "RSQRT", "MAX_POOL_2D", "AVERAGE_POOL_2D", "MAXIMUM", "MINIMUM"}
    | {"SQUARED_DIFFERENCE", "GELU", "PAD"}
)

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The range chosen for a group of activations, and how much less noise its readers make, in dB."""

    range: Range
    gain_db: float


class FloatFile:
    """A float file with the values of its activations on some samples.

    Args:
        float_model: the file.
        feeds: by sample what its inputs hold, in the file's order (NHWC).
        scales: activation name -> its present int8 scale and zero point.
        threads: of each interpreter.
    """

    def __init__(
        self, float_model: bytes, feeds: Sequence[Sequence[Floats]], scales: Mapping[str, Scale], *, threads: int = 1
    ) -> None:
        self._model = schema.read(float_model)
        self._graph = edit.graph_of(self._model)
        self._operators = list(self._graph.operators)
        self._kinds = [schema.op_name(self._model, each) for each in self._operators]
        self._threads = threads
        self._runners: dict[tuple[int, tuple[tuple[int, ...], ...]], Runner] = {}
        names = [schema.tensor_name(tensor) for tensor in self._graph.tensors]
        self.indices = {name: index for index, name in reversed(list(enumerate(names)))}
        self.scales = {self.indices[name]: scale for name, scale in scales.items() if name in self.indices}
        made = [int(index) for each in self._operators for index in each.outputs]
        runner = Runner(float_model, keep_all=True, threads=threads)
        kept: dict[int, list[Floats]] = {}
        for arrays in feeds:
            runner(arrays)
            for index in (*map(int, self._graph.inputs), *made):
                values = runner.tensor(index)
                if values.dtype == np.float32:
                    kept.setdefault(index, []).append(_tiles(values))
        self.values = {index: np.concatenate(parts) for index, parts in kept.items()}
        self._ends = {int(index) for index in self._graph.outputs}
        self._made = {*map(int, self._graph.inputs), *made}

    def readers(self, members: Sequence[int]) -> _Readers:
        """What reads some activations (statement 1)."""
        far = dict.fromkeys(members, 0)
        run, last, ends = [], [], []
        for number, operator in enumerate(self._operators):
            read = [int(index) for index in operator.inputs if int(index) in self._made]
            reached = [index for index in read if index in far]
            out = int(operator.outputs[0])
            if not reached or out in members:
                continue
            if not self._runs_on_tiles(number, read):
                ends += reached
                continue
            run.append(number)
            depth = max(far[index] for index in reached) + 1
            if self._kinds[number] in _WEIGHTED or out in self._ends or depth >= DEPTH:
                ends.append(out)
                last.append(number)
            else:
                far[out] = depth
        return _Readers(self, members, run, last, list(dict.fromkeys(ends)))

    def _runs_on_tiles(self, number: int, read: Sequence[int]) -> bool:
        operator = self._operators[number]
        if self._kinds[number] not in _ON_TILES or not {int(operator.outputs[0]), *read} <= self.values.keys():
            return False
        sizes = {
            tuple(int(size) for size in self._graph.tensors[index].shape[1:3]) for index in read if self._is_map(index)
        }
        return len(sizes - {(1, 1)}) <= 1 and len({len(self.values[index]) for index in read}) == 1

    def _is_map(self, index: int) -> bool:
        return len(self._graph.tensors[index].shape) == 4

    def run(self, number: int, given: Mapping[int, Floats]) -> Floats:
        """What an operator makes; what is not given is float's."""
        operator = self._operators[number]
        read = [index for index in dict.fromkeys(map(int, operator.inputs)) if index in self._made]
        arrays = [given.get(index, self.values[index]) for index in read]
        shapes = {index: array.shape for index, array in zip(read, arrays, strict=True)}
        key = (number, tuple(shapes.values()))
        if key not in self._runners:
            self._runners[key] = Runner(edit.alone(self._model, operator, shapes)[0], threads=self._threads)
        made: Floats = self._runners[key](arrays)[0]
        return made

    def output(self, number: int) -> int:
        """The activation that an operator makes."""
        return int(self._operators[number].outputs[0])


class _Readers:
    """The operators behind a group of activations in one file, and where they are compared with float."""

    def __init__(
        self, file: FloatFile, members: Sequence[int], run: Sequence[int], last: Sequence[int], ends: Sequence[int]
    ) -> None:
        self._file, self._members, self._run, self._last, self.ends = file, members, run, last, ends
        exact: dict[int, Floats] = {index: file.values[index] for index in members}
        for number in run:
            exact[file.output(number)] = file.run(number, exact)
        self._exact = {index: exact[index] for index in ends}
        self._signal = {
            index: max(float(np.square(held - _mean(held)).sum()), 1e-12) for index, held in self._exact.items()
        }

    def noise_db(self, scale: Scale) -> list[float]:
        """The noise of each end over its signal where the group has a scale, in dB."""
        given = {index: _rounded(self._file.values[index], scale) for index in self._members}
        found: dict[int, Floats] = {}
        for number in self._run:
            out = self._file.output(number)
            made = self._file.run(number, given)
            if number in self._last:
                found[out] = made
            else:
                own = self._file.scales.get(out)
                given[out] = made if own is None else _rounded(made, own)
        found = given | found
        return [
            10 * float(np.log10(max(float(np.square(found[index] - exact).sum()) / self._signal[index], LEAST_NOISE)))
            for index, exact in self._exact.items()
        ]


def choose(
    files: Sequence[FloatFile],
    names: Sequence[tuple[int, str]],
    now: Range,
    lows: Sequence[float],
    highs: Sequence[float],
) -> Choice:
    """The best range of one group of activations, which becomes its scale in ``files``.

    Args:
        files: the float files of a chain.
        names: (number of the file, activation name) of the group.
        now: its present range.
        lows, highs: candidates for either end, of equal number; the narrowest last.
    """
    readers = []
    for number, file in enumerate(files):
        members = [file.indices[name] for n, name in names if n == number and file.indices.get(name) in file.values]
        if members:
            readers.append(file.readers(members))
    known: dict[Range, float] = {}

    def noise(candidate: Range) -> float:
        if candidate not in known:
            usable = candidate[1] - candidate[0] > NOTHING
            found = [each for part in readers for each in part.noise_db(scale_of(candidate))] if usable else [np.inf]
            known[candidate] = float(np.mean(found)) if found else 0.0
        return known[candidate]

    best = _descent(now, list(zip(lows, highs, strict=True)), noise)
    best = _descent(best, [(best[0], high) for high in highs], noise)
    best = _descent(best, [(low, best[1]) for low in lows], noise)
    if not any(part.ends for part in readers):
        best = now
    for number, name in names:
        index = files[number].indices.get(name)
        if index is not None:
            files[number].scales[index] = scale_of(best)
    return Choice(range=best, gain_db=noise(now) - noise(best))


def _tiles(values: Floats) -> Floats:
    """A map of one sample (1, H, W, C) as tiles (n, h, w, C); anything else, and a small map, unchanged."""
    if values.ndim != 4 or values.shape[1] * values.shape[2] <= (TILES * TILE) ** 2:
        return np.array(values)
    high, wide = (min(TILE, size) for size in values.shape[1:3])
    rows, columns = (
        [(size - part) * (2 * number + 1) // (2 * TILES) for number in range(TILES)]
        for size, part in zip(values.shape[1:3], (high, wide), strict=True)
    )
    return np.concatenate([values[:, row : row + high, left : left + wide] for row in rows for left in columns])


def _mean(values: Floats) -> Floats:
    mean: Floats = values.reshape(-1, values.shape[-1]).mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def _rounded(values: Floats, scale: Scale) -> Floats:
    step, zero_point = np.float32(scale[0]), scale[1]
    steps = np.rint(values * (np.float32(1) / step))
    made: Floats = np.clip(steps, np.float32(-128 - zero_point), np.float32(127 - zero_point), out=steps) * step
    return made


def _descent(best: Range, candidates: Sequence[Range], noise: Callable[[Range], float]) -> Range:
    """The best of candidates from wide to narrow; the search stops where two in a row are worse."""
    worse = 0
    for candidate in candidates:
        if noise(candidate) < noise(best):
            best, worse = candidate, 0
        elif noise(candidate) > noise(best):
            worse += 1
            if worse == 2:
                break
    return best
