"""``graphcut simulate`` on small splits: estimates that say so, and one line for what cannot be simulated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graphcut.cli import main
from graphcut.deploy.part_costs import part_costs
from graphcut.prediction.latency import LINKS
from graphcut.runtime.chain import Chain
from graphcut.runtime.job_folder import read_job
from graphcut.runtime.litert import LiteRtOpener
from tests.support.places import SHARED
from tests.support.tiny_split import branched, straight, write_split


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split(tmp_path_factory.mktemp("split"), straight(3), ["s3"])


def test_the_estimate_is_marked_and_names_the_bottleneck(split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", str(split), "--link", "pcie"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("ESTIMATED from published measurements")
    assert "bottleneck   segment" in said
    assert main(["simulate", str(split), "--devices", "2", "--json", "--inputs", "100"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["estimated"] is True
    assert [station["devices"] for station in document["stations"]] == [["usb:0"], ["usb:1"]]
    assert document["throughput_per_s"] > 0
    assert any("share usb:" in note for note in document["notes"])


def test_measured_times_and_other_ways_are_taken(split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", str(split), "--compute-ms", "1,5,2", "--link", "pcie", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["bottleneck"].startswith("segment 2")
    assert main(["simulate", str(split), "--tail", "2", "--json", "--every", "50", "--random-arrivals", "3"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [part["label"] for part in document["parts"]] == ["segment 1", "tail 2..3"]
    assert document["bottleneck"].startswith("the inputs")
    assert main(["simulate", str(split), "--unsplit"]) == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--devices", "cpu"], 2, "a CPU's times are measured"),
        (["--compute-ms", "1,2"], 2, "2 times for 3 parts"),
        (["--compute-ms", "1,x,2"], 2, "not a time"),
        (["--random-arrivals", "1"], 2, "add --every MS"),
        (["--inputs", "5"], 2, "at least 20 inputs"),
        (["--tail", "7"], 2, "no tail that begins at segment 7"),
        (["--devices", "0"], 2, "no device"),
    ],
)
def test_what_cannot_be_simulated_is_one_line(
    split: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    assert main(["simulate", str(split), *words]) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_seams_inputs_and_outputs_are_told_apart(tmp_path: Path) -> None:
    job = read_job(write_split(tmp_path, branched(), ["early", "late"], ["left", "right"]))
    with Chain(job.parts, LiteRtOpener(), inputs=job.inputs, outputs=job.outputs) as chain:
        first, second, _, last = part_costs(job.parts, chain.flow, LINKS["usb-x86"]).parts
    assert (first.host_in_bytes, first.seam_in_bytes, first.seam_out_bytes) == (256, 0, 512)
    assert (second.host_in_bytes, second.host_out_bytes, second.seam_in_bytes) == (256, 256, 256)
    assert (last.host_out_bytes, last.seam_out_bytes) == (256, 0)
    assert first.off_chip_bytes == 0
    assert first.on_chip_bytes > 2 * 4 * 3 * 3 * 4


def test_a_compiled_file_says_itself_what_streams(tmp_path: Path) -> None:
    pairs = SHARED / "edgetpu" / "pairs"
    plain = pairs / "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
    if not plain.is_file():
        pytest.skip("the shared compiled files are not here")
    (tmp_path / "unsplit" / "tpu").mkdir(parents=True)
    (tmp_path / "unsplit" / "unsplit_int8.tflite").write_bytes(plain.read_bytes())
    compiled = plain.with_name(f"{plain.stem}_edgetpu.tflite")
    (tmp_path / "unsplit" / "tpu" / "unsplit_int8_edgetpu.tflite").write_bytes(compiled.read_bytes())
    job = read_job(tmp_path, unsplit=True)
    with Chain(job.parts, LiteRtOpener()) as chain:
        estimates = part_costs(job.parts, chain.flow, LINKS["usb-x86"])
    (cost,) = estimates.parts
    assert 3 * 2**20 < cost.on_chip_bytes < 5 * 2**20
    assert cost.compute_ms == pytest.approx(0.98, abs=0.05), "0.65 * 10^9 multiplications of full tiles"
    assert not any("predicted" in note for note in estimates.notes)
