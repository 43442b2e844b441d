"""``graphcut bench``: what it measures adds up, what is wrong is not measured, estimates stand apart."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from graphcut.cli import main
from graphcut.deploy.benchmark import Bench, BenchOptions, bench, percentile
from graphcut.errors import UsageError, VerificationError
from graphcut.report.bench_tables import bench_text
from graphcut.report.plot import bench_svg
from graphcut.report.tables import plain
from graphcut.runtime.devices import CPU, Device, parse_devices
from graphcut.runtime.interpreter import Part
from graphcut.runtime.job_folder import read_job
from graphcut.runtime.litert import LiteRtOpener
from tests.support.tiny_split import branched, conv, segment, straight, write_split

SHAPE = (1, 32, 32, 16)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split(tmp_path_factory.mktemp("split"), straight(3, shape=SHAPE), ["s3"])


@pytest.fixture(scope="module")
def measured(split: Path) -> Bench:
    options = BenchOptions(rounds=3, inputs=6, devices=parse_devices("cpu,cpu"))
    opener = LiteRtOpener()
    return bench(read_job(split), read_job(split, unsplit=True), opener, opener.describe(), options)


def test_the_figures_add_up(measured: Bench) -> None:
    assert [way.way for way in measured.ways] == ["unsplit", "chain", "pipeline"]
    assert measured.inferences == 18
    for way in measured.ways:
        assert 0 < way.p50_ms <= way.p95_ms <= way.p99_ms
        assert way.open_ms > 0
        assert way.first_ms > 0
        assert way.throughput_per_s > 0
    assert sum(part.share for part in measured.parts) == pytest.approx(1)
    chain = measured.ways[1]
    assert sum(part.p50_ms for part in measured.parts) <= 1.5 * chain.p50_ms
    assert [len(station.labels) for station in measured.stations] in ([1, 2], [2, 1])
    assert measured.overhead is not None
    assert measured.speedup > 0
    assert all(station.faults == 0 for station in measured.stations)


class Starved(LiteRtOpener):
    """Interpreters that wait before they compute, as on a machine whose processors others have."""

    def __call__(self, part: Part, device: Device = CPU) -> Any:
        inner = super().__call__(part, device)

        class Waiting:
            inputs, outputs, close = inner.inputs, inner.outputs, inner.close

            def __call__(self, arrays: Any) -> Any:
                time.sleep(0.005)
                return inner(arrays)

        return Waiting()


def test_processors_that_others_had_are_said_however_few_were_left(split: Path) -> None:
    options = BenchOptions(rounds=1, inputs=4, devices=parse_devices("cpu,cpu"))
    result = bench(read_job(split), None, Starved(), "waiting", options)
    assert result.ways[0].processors < 0.85
    assert any(remark.startswith("STARVED: the chain got 0.") for remark in result.remarks), result.remarks


def test_text_and_picture_show_every_way_and_part(measured: Bench) -> None:
    text = plain(bench_text(measured, {}))
    assert text.startswith("MEASURED: tiny, chain, 18 inferences of each way, same bytes from all")
    assert "SYNTHETIC calibration" in text
    assert "ESTIMATED" not in text
    noisy = replace(measured, name="a <b> & c", remarks=("NOISY: very",))
    picture = ElementTree.fromstring(bench_svg(noisy))
    words = [element.text or "" for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert words[0] == "a <b> & c: chain"
    assert {"unsplit", "chain", "pipeline", "segment 1", "segment 2", "segment 3"} <= set(words)
    assert words[-1].endswith("; NOISY")


def test_the_verb_writes_a_table_json_and_a_picture(
    split: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "bench.svg"
    words = ["bench", str(split), "--rounds", "2", "--inputs", "3", "--plot", str(picture)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "pipeline over chain" in said
    assert said.index("MEASURED") < said.index("ESTIMATED from published measurements")
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    assert main(["--quiet", *words[:-2], "--json", "--tail", "2", "--processes"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["measured"]["way"] == "prefix + tail k=2"
    assert [part["label"] for part in document["measured"]["parts"]] == ["segment 1", "tail 2..3"]
    assert document["measured"]["runtime"].endswith("in a separate process")
    assert set(document["estimated"]) == {
        "unsplit, 1 over usb",
        "unsplit, 1 over pcie",
        "prefix + tail k=2, 2 over usb",
        "prefix + tail k=2, 2 over pcie",
    }


def test_several_inputs_and_outputs_and_a_missing_unsplit_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_split(tmp_path, branched(), ["early", "late"], ["left", "right"])
    (folder / "unsplit" / "unsplit_int8.tflite").unlink()
    assert main(["bench", str(folder), "--rounds", "1", "--inputs", "2", "--no-estimates", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [way["way"] for way in document["measured"]["ways"]] == ["chain", "pipeline"]
    assert document["measured"]["overhead"] is None


def test_a_split_that_computes_something_else_is_not_measured(tmp_path: Path) -> None:
    folder = write_split(tmp_path, straight(2), ["s2"])
    other = segment([conv("image", "s1_1"), conv("s1_1", "s1")], ["image"], ["s1"], seed=5)
    (folder / "full_split" / "tflite" / "seg1_int8.tflite").write_bytes(other)
    with pytest.raises(VerificationError, match="differ from those of the unsplit"):
        bench(read_job(folder), read_job(folder, unsplit=True), LiteRtOpener(), "", BenchOptions(rounds=1, inputs=1))
    assert main(["bench", str(folder), "--rounds", "1", "--inputs", "1"]) == 7


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--plot", "bench.png"], 2, "ends in .svg"),
        (["--plot", "/nowhere/at/all/bench.svg"], 8, "there is no folder"),
        (["--devices", "gpu"], 2, "not a device"),
        (["--devices", "usb:0"], 10, "is not compiled, but"),
        (["--runtime", "tflite-runtime"], 9, "tflite-runtime is not installed"),
        (["--rounds", "0"], 2, "use 1 or more"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    split: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    assert main(["--quiet", "bench", str(split), "--inputs", "1", "--no-estimates", "--rounds", "1", *words]) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_options_that_measure_nothing(split: Path) -> None:
    with pytest.raises(UsageError, match="must be at least 1"):
        bench(read_job(split), None, LiteRtOpener(), "", BenchOptions(rounds=0))


def test_percentiles_are_nearest_ranks() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 0.50), percentile(values, 0.95), percentile(values, 0.99)) == (50, 95, 99)
    assert percentile([7.0], 0.99) == 7
    assert percentile([], 0.5) == 0
