"""The report as HTML: what it says, that it parses, and that names of a model file stay text. No browser here."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import graphcut as graphcut_package
from graphcut import cli
from graphcut.errors import UsageError
from graphcut.records import Evaluation, Figure, Preprocessing, WorstPicture
from graphcut.report.html import exports, page, sentences, svg
from graphcut.report.html.collect import facts_of
from graphcut.report.html.error_figures import samples, worst
from graphcut.report.html.gantt import gantt
from graphcut.report.html.strip import MOST_BARS, strip, together
from graphcut.report.html.thumbnails import EDGE, thumbnail
from graphcut.report.html.tradeoff import tradeoff
from graphcut.units import MIB
from tests.cli.test_cli import PREPARED, Graphcut
from tests.support import nets
from tests.support.made_facts import HOSTILE, facts

VOID = frozenset({"meta", "link", "img", "input", "br", "hr"})


class Page(HTMLParser):
    """Checks that elements nest, and collects them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


@pytest.fixture
def graphcut(capsys: pytest.CaptureFixture[str]) -> Graphcut:
    return Graphcut(capsys)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, pictures, and a split of it."""
    folder = tmp_path_factory.mktemp("reported")
    nets.saved(nets.residual(softmax=True), folder)
    rng = np.random.default_rng(3)
    for which in ("photos", "others"):
        (folder / which).mkdir()
        for index in range(4):
            small = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(small).resize((60, 50), Image.Resampling.BICUBIC).save(folder / which / f"{index}.png")
    words = ["split", folder / "model.onnx", "-o", folder / "out", "--segments", 3, "-q"]
    assert cli.main([str(word) for word in [*words, "--calibration", folder / "photos", *PREPARED]]) == 0
    return folder


# --- a page ---


def test_a_page_parses_and_has_all_sections() -> None:
    read = Page(page.render(facts()))
    ids = {given["id"] for _, given in read.elements if given.get("id")}
    assert {"graph", "sizes", "trade-off", "line", "error", "cpu", "appendix"} <= ids
    assert {"strip", "segments", "tradeoff", "pipeline", "worst", "samples"} <= ids
    assert len([given["id"] for _, given in read.elements if given.get("id")]) == len(ids), "an id occurs twice"
    assert "blockmodel_out in 7 int8 segments of at most 6.067 MiB" in read.text
    for words in ("PASSED", "exact", "fewest segments possible", "top-1 agrees on 6 of 12"):
        assert words in read.text
    assert "133 of 140 operators on the chip" in read.text
    assert "SYNTHETIC calibration" in read.text


def test_the_same_facts_give_the_same_bytes() -> None:
    assert page.render(facts()) == page.render(facts())


def test_a_page_of_a_large_model_stays_below_a_megabyte() -> None:
    many = facts(k=20, operators=300)
    assert len(many.operators) == 6000
    assert len(together(many.operators)) <= MOST_BARS + 20
    assert len(page.render(many).encode()) < 2_500_000  # 6,000 operators; their CSV alone has 800 kB
    assert len(page.render(facts(k=7, operators=50)).encode()) < 1_000_000  # as many as ResNet101 twice


def test_failures_are_said_first() -> None:
    made = facts()
    assert made.proof is not None
    wrong = replace(made, proof=replace(made.proof, verdict="FAILED", exact=False, agreement=0.25))
    read = Page(page.render(wrong))
    assert "✕ FAILED" in read.text or "✕FAILED" in read.text
    assert "NOT exact" in read.text
    bad = [given for name, given in read.elements if name == "li" and given.get("class") == "badge bad"]
    assert len(bad) == 2


def test_a_weak_verdict_is_a_warning() -> None:
    made = facts()
    assert made.proof is not None
    weak = replace(made, proof=replace(made.proof, verdict="WEAK", reason="12.1 dB at scores"))
    read = Page(page.render(weak))
    badge = next(given for name, given in read.elements if name == "li" and "12.1 dB" in (given.get("title") or ""))
    assert badge["class"] == "badge warn"


def test_an_evaluation_is_shown_with_what_it_was_measured_on() -> None:
    figure = Figure(
        name="float's boxes <kept>",
        values={"int8": 0.75, "on usb:0": 0.5},
        intervals={"int8": (0.5, 0.875)},
        of=16,
    )
    found = Evaluation(
        task="detection",
        head="yolov8",
        data="photos",
        pictures=9,
        seen=2,
        labelled=False,
        figures=(figure,),
        worst=(WorstPicture(name="a.png", why="2 of 3 boxes missed"),),
    )
    read = Page(page.render(replace(facts(), evaluation=found)))
    for words in (
        "detection (yolov8 head) on 9 pictures of photos, against the answers of the float model",
        "2 of them were used for calibration",
        "float's boxes <kept>",
        "12 of 16 (75.0%) [50.0%, 87.5%]",
        "8 of 16 (50.0%)",
        "a.png: 2 of 3 boxes missed",
    ):
        assert words in read.text
    assert "Answers" not in Page(page.render(facts())).text


def test_held_out_samples_are_not_called_calibration() -> None:
    made = facts()
    assert made.proof is not None
    proof = replace(
        made.proof,
        held_out=True,
        samples=4,
        calibration_samples=12,
        calibration_db={"logits": 25.0, "block1_out": 22.5},
    )
    text = Page(page.render(replace(made, proof=proof, sample_sets=made.sample_sets[1:]))).text
    assert "calibration: 12 samples, worst place block1_out with 22.5 dB" in text
    assert "ranges of activations taken from 12 samples" in text
    assert "identical bytes on all 4 held-out samples" in text
    assert "so they flatter the model" not in text


def test_without_budget_options_timeline_samples_and_seams() -> None:
    bare = replace(
        facts(k=1, operators=1),
        budget_bytes=None,
        minimal_k=None,
        options=(),
        timeline=None,
        seams=(),
        sample_sets=(),
        proof=None,
        planned_only=True,
        combinations=(),
        cuts=(),
    )
    read = Page(page.render(bare))
    assert "in 1 segment, predicted at most" in read.text
    assert "planned, not converted" in read.text
    assert "Nothing is converted yet, so no error was measured." in read.text
    assert read.count("svg") >= 2


# --- hostile names ---


def test_hostile_names_stay_text() -> None:
    made = facts(k=3, operators=3, name=HOSTILE.replace("{", "{{").replace("}", "}}") + "{}")
    made = replace(
        made,
        sample_sets=tuple(
            replace(one, samples=tuple(replace(each, name=HOSTILE + each.name) for each in one.samples))
            for one in made.sample_sets
        ),
        segments=tuple(replace(each, inputs=(HOSTILE,), outputs=(HOSTILE,)) for each in made.segments),
        versions={HOSTILE: HOSTILE},
    )
    text = page.render(made)
    read = Page(text)
    assert read.count("script") == 1
    assert all(given.get("src", "").startswith("data:") for name, given in read.elements if name == "img")
    assert not [key for _, given in read.elements for key in given if key.startswith("on")]
    assert "window.owned=1" in read.text
    assert "{{7*7}}" in read.text
    assert "\u202e" not in text
    assert "\x00" not in text
    for drawn in (strip(made), worst(made), gantt(made.timeline), tradeoff(made), samples(made.sample_sets)):
        ET.fromstring(drawn)


def test_hostile_names_in_csv_and_latex() -> None:
    made = facts(k=2, operators=2, name='=HYPERLINK("http://x","y")\n,{}')
    rows = list(csv.reader(io.StringIO(exports.operators_csv(made))))
    assert len(rows) == 5
    assert all(len(row) == len(rows[0]) for row in rows)
    assert rows[1][2].startswith("'=HYPERLINK")
    assert exports.latex(r"\input{/etc/passwd} 5 % & _#~^$") == (
        r"\textbackslash{}input\{/etc/passwd\} 5 \% \& \_\#\textasciitilde{}\textasciicircum{}\$"
    )


def test_a_comparison_escapes_the_names_of_folders() -> None:
    read = Page(page.render_comparison({HOSTILE: facts(k=3), "b": facts(k=2)}))
    assert read.count("script") == 1
    assert "2 splits side by side" in read.text


def test_invisible_characters_are_shown() -> None:
    assert svg.shown("a\u202eb\x00\n") == "a\\u202eb\\x00\\n"
    assert svg.shown("0123456789", 5) == "01…89"
    assert svg.tag("rect", x=1.0, class_='"><') == '<rect x="1" class="&quot;&gt;&lt;"/>'


# --- figures ---


def test_figures_are_xml_with_title_and_description() -> None:
    made = facts()
    for drawn in (strip(made), worst(made), gantt(made.timeline), tradeoff(made), samples(made.sample_sets)):
        tree = ET.fromstring(drawn)
        space = "{http://www.w3.org/2000/svg}"
        title, description = tree.find(f"{space}title"), tree.find(f"{space}desc")
        assert title is not None
        assert description is not None
        assert title.text
        assert description.text
        assert tree.attrib["aria-labelledby"] == f"{title.attrib['id']} {description.attrib['id']}"


def test_the_strip_has_a_bar_for_each_operator_with_its_proportions() -> None:
    made = facts(k=2, operators=4)
    bars = [
        (float(x), float(width), float(height))
        for x, width, height in re.findall(
            r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)" height="([\d.]+)" class="op ', strip(made)
        )
    ]
    assert len(bars) == 8
    for (x, width, _), (following, _, _) in pairwise(bars):
        assert x + width == pytest.approx(following, abs=0.02)
    least = 2.0  # of a bar without parameters
    weights = [each.parameter_bytes for each in made.operators]
    assert (bars[0][1] - least) / (bars[2][1] - least) == pytest.approx(weights[0] / weights[2], rel=0.01)
    assert (bars[0][2] / bars[1][2]) ** 2 == pytest.approx(
        made.operators[0].activation_bytes / made.operators[1].activation_bytes, rel=0.01
    )


def test_cut_names_never_share_a_place() -> None:
    for k in (2, 9, 40):
        drawn = strip(facts(k=k, operators=3, name="a_rather_long_name_of_a_layer_{}"))
        found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" class="name">([^<]*)<', drawn)
        spans = [(float(y), float(x), float(x) + svg.CHARACTER * len(name)) for x, y, name in found]
        assert len(spans) == k - 1
        for number, (y, start, stop) in enumerate(spans):
            assert not [1 for other, a, b in spans[number + 1 :] if other == y and a < stop and start < b]


def test_ticks_and_lanes() -> None:
    assert svg.ticks(7.3) == [0.0, 2.0, 4.0, 6.0]
    assert svg.ticks(0.0) == [0.0]
    assert svg.byte_ticks(7 * MIB) == [0.0, 2 * MIB, 4 * MIB, 6 * MIB]
    assert svg.log_ticks(0.9, 25) == [1.0, 2.0, 5.0, 10.0, 20.0]
    assert svg.lanes([(0, 10), (5, 15), (20, 30), (24, 25)]) == [0, 1, 0, 1]


def test_csv_has_the_numbers_of_the_figures() -> None:
    made = facts(k=3, operators=5)
    rows = {name: list(csv.DictReader(io.StringIO(write(made)))) for name, write in exports.CSV.items()}
    assert len(rows["strip"]) == 15
    assert rows["strip"][2]["parameter_bytes"] == str(made.operators[2].parameter_bytes)
    assert [row["tflite_bytes"] for row in rows["segments"]] == [str(each.tflite_bytes) for each in made.segments]
    assert {row["stamp"] for row in rows["pipeline"]} == {"ESTIMATED"}
    assert len(rows["pipeline"]) == 3 * 10 * 4
    assert float(rows["worst"][0]["sqnr_db"]) == 10.0
    assert len(rows["samples"]) == 24
    assert len(rows["combinations"]) == 2


def test_a_thumbnail_turns_the_preparation_round() -> None:
    pixels = np.zeros((3, 300, 200), np.float32)
    pixels[0] = 200.0
    prepared = Preprocessing(mean=(127.5,), std=(127.5,), colour="bgr")
    made = thumbnail((pixels[::-1] - 127.5) / 127.5, prepared)
    assert made is not None
    picture = Image.open(io.BytesIO(made))
    assert picture.size == (96, EDGE)
    red, green, blue = picture.getpixel((50, 50))  # type: ignore[misc]
    assert (red > 190, green < 10, blue < 10) == (True, True, True)
    assert thumbnail(np.zeros((5, 4, 4), np.float32), None) is None
    assert thumbnail(np.full((1, 4, 4), np.nan, np.float32), None) is None
    assert thumbnail(np.zeros((1, 4, 4), np.float32), None) is not None


# --- words ---


def test_sentences_of_a_split_that_streams_and_is_above_its_budget() -> None:
    made = facts(k=3)
    assert "1.000 MiB are expected to stream at every inference" in sentences.segments_lead(made)
    small = replace(made, budget_bytes=6 * MIB)
    assert "29.3 KiB ABOVE the budget of 6.000 MiB" in sentences.segments_lead(small)
    assert sentences.pipeline_lead(made).startswith("333 results/s, latency 9.00 ms, ESTIMATED")
    rows = sentences.cpu_rows(made)
    assert rows == [("ADD", "its output is float32, not int8", 3, "block1_out/3, block2_out/3, block3_out/3")]


def test_what_streams_is_listed() -> None:
    made = facts(k=3)
    assert sentences.streaming_rows(made) == [(3, "block3_out/18", 361_000)]
    assert "segment 3: block3_out/18, 352.5 KiB" in Page(page.render(made)).text
    none = replace(made, operators=tuple(replace(each, streams=False) for each in made.operators))
    assert "What streams" not in Page(page.render(none)).text


def test_layers_that_stream_add_up_to_what_the_files_stream(tmp_path: Path) -> None:
    """A dense layer larger than the chip's room streams whole; its bytes are the segment's."""
    nets.saved(nets.residual(), tmp_path)
    words = ["split", tmp_path / "model.onnx", "-o", tmp_path / "out", "--segments", 2, "--calibration", "random", "-q"]
    profile = tmp_path / "small.toml"
    profile.write_text('like = "coral-usb"\nroom = "1KiB"\n')
    assert cli.main([str(word) for word in [*words, "--samples", 1, "--device", profile]]) in (0, 7)
    made = facts_of(tmp_path / "out")
    for segment in made.segments:
        own = [each for each in made.operators if each.segment == segment.index]
        assert sum(each.parameter_bytes for each in own if each.streams) == segment.off_chip_bytes
    assert sum(each.off_chip_bytes for each in made.segments) > 0
    timed = [each for each in made.operators if each.streams]
    assert all(each.time_ms is not None and each.time_ms >= 3.29 * each.parameter_bytes / MIB for each in timed)


def test_estimated_and_measured_are_never_mixed() -> None:
    made = facts(k=2)
    assert made.timeline is not None
    measured = replace(made, timeline=replace(made.timeline, stamp="MEASURED"))
    drawn = gantt(measured.timeline)
    assert "MEASURED" in drawn
    assert "ESTIMATED" not in drawn
    assert sentences.pipeline_lead(measured).count("ESTIMATED") == 0


# --- of a real split ---


def test_a_split_writes_its_report(home: Path) -> None:
    read = Page((home / "out/report.html").read_text())
    document = json.loads((home / "out/meta.json").read_text())
    assert "in 3 int8 segments of at most" in read.text
    assert "PASSED" in read.text
    operators = sum(
        given.get("class", "").startswith("op ") and name == "rect" and "x" in given for name, given in read.elements
    )
    links = [given["href"] for name, given in read.elements if given.get("download") == "strip.csv"]
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(links[0].partition(",")[2]).decode())))
    assert operators == len(rows) > 10
    assert {row["segment"] for row in rows} == {"1", "2", "3"}
    assert len(document["verification"]["by_sample"]) == 4
    assert document["trade_off"]["swept"][2]["k"] == 3
    assert document["trade_off"]["swept"][2]["largest_tflite_bytes"] == document["plan"]["largest_tflite_bytes"]
    assert [given.get("src", "")[:23] for name, given in read.elements if name == "img"] == [
        "data:image/jpeg;base64,"
    ] * 4
    assert str(home) not in (home / "out/report.html").read_text()


def test_by_sample_agrees_with_the_whole(home: Path) -> None:
    proof = json.loads((home / "out/meta.json").read_text())["verification"]
    for place, worst_name in proof["worst_sample"].items():
        least = min(proof["by_sample"], key=lambda each: each["sqnr_db"][place])
        assert least["name"] == worst_name
    agree = [each["float_best"][0][0] == each["int8_best"][0][0] for each in proof["by_sample"]]
    assert sum(agree) / len(agree) == proof["top1_agreement"]
    for each in proof["by_sample"]:
        scores = [score for _, score in each["float_best"]]
        assert scores == sorted(scores, reverse=True)
        assert 0 < sum(scores) <= 1.00001  # probabilities: the net ends with a softmax


def test_no_report(graphcut: Graphcut, home: Path, tmp_path: Path) -> None:
    words = ["split", home / "model.onnx", "-o", tmp_path / "out", "--segments", 2, "--no-report"]
    assert graphcut(*words, "--calibration", "random", "--samples", 1).code == 0
    assert not (tmp_path / "out/report.html").exists()


def test_report_of_held_out_samples_with_labels(graphcut: Graphcut, home: Path, tmp_path: Path) -> None:
    classes = len(json.loads((home / "out/meta.json").read_text())["verification"]["by_sample"][0]["float_best"])
    shape = json.loads((home / "out/meta.json").read_text())["outputs"][0]["shape"]
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"kind <{index}>" for index in range(shape[-1])))
    out = tmp_path / "report.html"
    ended = graphcut("report", home / "out", "-o", out, "--held-out", home / "others", "--labels", labels)
    assert ended.code == 0
    assert str(out) in ended.out
    read = Page(out.read_text())
    assert "Worst samples, calibration" in read.text
    assert "Worst samples, held-out" in read.text
    assert "held-out: 4 samples from folder others" in read.text
    assert re.search(r"kind <\d+>", read.text)
    assert classes >= 2


def test_a_measured_timeline(graphcut: Graphcut, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert graphcut("report", home / "out", "-o", out, "--measure", "cpu").code == 0
    text = out.read_text()
    links = re.findall(r'download="pipeline.csv" href="data:[^,]*,([^"]*)"', text)
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(links[0]).decode())))
    assert {row["stamp"] for row in rows} == {"MEASURED"}
    assert [
        (row["device"], int(row["input"])) for row in sorted(rows, key=lambda row: (row["device"], int(row["input"])))
    ] == [(f"segment {segment}", number) for segment in (1, 2, 3) for number in range(1, 11)]
    for number in range(1, 11):
        times = {row["device"]: row for row in rows if int(row["input"]) == number}
        for segment in (1, 2):
            assert float(times[f"segment {segment}"]["stop_ms"]) <= float(times[f"segment {segment + 1}"]["start_ms"])
    read = Page(text)
    assert re.search(r"results/s, latency [\d.]+ ms, MEASURED on 3 x cpu", read.text)
    pipeline = re.search(r'<svg[^>]*id="pipeline".*?</svg>', text, re.DOTALL)
    assert pipeline is not None
    assert "ESTIMATED" not in pipeline[0]


def test_samples_kept_out_of_calibration_are_shown_as_such(graphcut: Graphcut, home: Path, tmp_path: Path) -> None:
    words = ["split", home / "model.onnx", "-o", tmp_path / "out", "--segments", 2, "--calibration", home / "photos"]
    assert graphcut(*words, "--validation", home / "others", *PREPARED).code in (0, 7)  # noise has no answer to keep
    made = facts_of(tmp_path / "out")
    assert [one.name for one in made.sample_sets] == ["held-out"]
    assert made.sample_sets[0].origin == "folder others"
    assert all(each.picture for each in made.sample_sets[0].samples)
    read = Page((tmp_path / "out/report.html").read_text())
    assert "Worst samples, held-out" in read.text
    assert "Worst samples, calibration" not in read.text
    assert "calibration: 4 samples, worst place" in read.text


def test_report_from_python(home: Path, tmp_path: Path) -> None:
    split = graphcut_package.open(home / "out")
    assert split.report() == home / "out/report.html"
    made = split.report(tmp_path / "report.html", held_out=home / "others")
    assert "held-out: 4 samples from folder others" in Page(made.read_text()).text
    with pytest.raises(UsageError, match="exists"):
        split.report(made)


def test_report_mistakes(graphcut: Graphcut, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("mine")
    graphcut.fails(2, "exists", "report", home / "out", "-o", out)
    assert out.read_text() == "mine"
    graphcut.fails(2, "there is no folder nowhere", "report", "nowhere")
    graphcut.fails(2, "cannot be read as labels", "report", home / "out", "--labels", tmp_path / "none")
    graphcut.fails(
        2, "need a single split", "report", home / "out", home / "out", "--labels", out, "-o", tmp_path / "b"
    )
    graphcut.fails(2, "there are 2 devices for 3 segments", "report", home / "out", "--measure", "cpu,cpu")
    out.write_text("one label")
    graphcut.fails(2, "there are 1 labels and", "report", home / "out", "--labels", out)
    broken = Path(shutil.copytree(home / "out", tmp_path / "broken"))
    (broken / "full_split/tflite/seg2_int8.tflite").unlink()
    graphcut.fails(3, "seg2_int8.tflite", "report", broken)
    (broken / "full_split/tflite/seg2_int8.tflite").write_bytes(b"\0" * 500)
    graphcut.fails(3, "seg2_int8.tflite", "report", broken)


def test_report_of_several(graphcut: Graphcut, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "both.html"
    assert graphcut("report", home / "out", home / "out", "-o", out).code == 0
    read = Page(out.read_text())
    assert "weakest place" in read.text
    graphcut.fails(2, "exists", "report", home / "out", home / "out", "-o", out)


def test_an_older_manifest_has_a_report_too(home: Path, tmp_path: Path, graphcut: Graphcut) -> None:
    old = Path(shutil.copytree(home / "out", tmp_path / "old"))
    document = json.loads((old / "meta.json").read_text())
    del document["trade_off"]
    del document["verification"]["by_sample"]
    (old / "meta.json").write_text(json.dumps(document))
    assert graphcut("report", old).code == 0
    read = Page((old / "report.html").read_text())
    assert "This folder holds no other plans" in read.text


@pytest.mark.parametrize(
    "change",
    [
        {"trade_off": {"swept": [{"name": "balanced", "k": "<b>"}]}},
        {
            "trade_off": {
                "swept": [{"k": 1, "largest_tflite_bytes": 0, "interval_ms": 1, "latency_ms": 1, "off_chip_bytes": 0}]
            }
        },
        {"trade_off": {"swept": [{"k": 1, "largest_tflite_bytes": 9, "interval_ms": 1e999}]}},
        {"trade_off": []},
        {"diagnosis": {"samples": 4, "synthetic": False, "operators": [{"layer": "a", "sqnr_db": "many"}]}},
        {"diagnosis": {"operators": 3}},
        {"diagnosis": []},
    ],
)
def test_a_damaged_manifest_is_a_line(
    graphcut: Graphcut, home: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    copy = Path(shutil.copytree(home / "out", tmp_path / "copy"))
    document = json.loads((copy / "meta.json").read_text())
    (copy / "meta.json").write_text(json.dumps({**document, **change}))
    (copy / "report.html").unlink()
    graphcut.fails(2, "meta.json", "report", copy)
    assert not (copy / "report.html").exists()


def test_decibels_of_operators_are_shown_where_the_manifest_has_them(home: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(home / "out", tmp_path / "copy"))
    before = facts_of(copy)
    assert not before.by_operator
    assert {each.sqnr_db for each in before.operators if each.segment == 3} == {
        min(each.sqnr_db for each in before.seams if each.layer == "logits")
    }
    document = json.loads((copy / "meta.json").read_text())
    layers = [each.layer for each in before.operators]
    same = {"op": "CONV_2D", "part": "", "low": 0.0, "high": 1.0, "scale": 0.1, "zero_point": 0, "alone_db": 30.0}
    document["diagnosis"] = {
        "samples": 4,
        "synthetic": False,
        "operators": [
            {**same, "segment": each.segment, "layer": each.layer, "sqnr_db": 20.0 + number}
            for number, each in enumerate(before.operators)
        ],
    }
    (copy / "meta.json").write_text(json.dumps(document))
    after = facts_of(copy)
    assert after.by_operator
    assert [each.sqnr_db for each in after.operators] == [20.0 + n for n in range(len(layers))]
    assert f"{layers[0]} (" in worst(after)


def test_plan_report(graphcut: Graphcut, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.html"
    assert graphcut("plan", home / "model.onnx", "--segments", 3, "--report", out).code == 0
    read = Page(out.read_text())
    assert "in 3 segments, predicted at most" in read.text
    assert "planned, not converted" in read.text
    assert "graphcut plan MODEL --segments 3" in read.text
    graphcut.fails(2, "exists", "plan", home / "model.onnx", "--segments", 3, "--report", out)
    assert graphcut("plan", home / "model.onnx", "--segments", 2, "--report", out, "--force").code == 0
