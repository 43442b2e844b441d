"""Parts on several machines: Ray nodes on this one. Same bytes, placed by resource, deaths survived."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphcut.cli import main
from graphcut.cluster.cluster_pipeline import ClusterPipeline, ClusterSettings
from graphcut.deploy.bundling import bundle
from graphcut.errors import DependencyError, RunError
from graphcut.runtime.chain import Chain, SegmentError
from graphcut.runtime.devices import parse_device
from graphcut.runtime.job_folder import Job, read_job
from graphcut.runtime.litert import LiteRtOpener
from tests.support import nets
from tests.support.tiny_split import branched, images, straight, write_split
from tests.support.toy_interpreter import Bench, Toy, computed, image

needs_ray = [
    pytest.mark.cluster,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (extra: cluster)"),
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("default"),  # Ray leaves files and sockets open
]
SHAPE = (1, 64, 64, 32)  # 128 KiB: above what Ray sends inline


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_extra_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_split(tmp_path / "split", straight(2), ["s2"])
    job = read_job(folder)
    with pytest.raises(DependencyError, match=r"pip install '\.\[cluster\]'"):
        ClusterPipeline(job.parts, LiteRtOpener())
    np.save(tmp_path / "x.npy", images(1)[0])
    assert main(["cluster", str(folder), str(tmp_path / "x.npy")]) == 9
    assert "Ray is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("needs", ["edgetpu=x", "=1", "edgetpu=-1"])
def test_resources_that_are_none(needs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "out", "in", "--needs", needs]) == 2
    assert "is not a resource" in capsys.readouterr().err


def test_where_results_go_is_looked_at_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_split(tmp_path / "split", straight(2), ["s2"])
    np.save(tmp_path / "x.npy", images(1)[0])
    words = ["cluster", str(folder), str(tmp_path / "x.npy"), "-o"]
    assert main([*words, str(tmp_path / "none" / "o.npz")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    (tmp_path / "o.npz").mkdir()
    assert main([*words, str(tmp_path / "o.npz")]) == 2
    assert "is a folder" in capsys.readouterr().err


@pytest.fixture
def machines() -> Iterator[Any]:
    """A cluster of four nodes: a head without CPUs for parts, and three that have an Edge TPU each, by name."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.others = [cluster.add_node(num_cpus=1, resources={"edgetpu": 1}) for _ in range(3)]
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def wanted_of(job: Job, inputs: list[Any]) -> list[list[bytes]]:
    with Chain(job.parts, LiteRtOpener(), inputs=job.inputs, outputs=job.outputs) as chain:
        return [[array.tobytes() for array in chain.run(each)] for each in inputs]


def bytes_of(results: Any) -> list[list[bytes]]:
    return [[array.tobytes() for array in outputs] for outputs in results]


def open_cluster(job: Job, **settings: Any) -> ClusterPipeline:
    return ClusterPipeline(
        job.parts, LiteRtOpener(), inputs=job.inputs, outputs=job.outputs, settings=ClusterSettings(**settings)
    )


class TestRay:
    pytestmark = needs_ray

    def test_one_part_a_machine_by_resource_and_deaths_survived(self, machines: Any, tmp_path: Path) -> None:
        job = read_job(write_split(tmp_path, straight(3, shape=SHAPE), ["s3"]))
        inputs = images(40, SHAPE)
        wanted = wanted_of(job, inputs)
        with open_cluster(job, address=machines.address, resources={"edgetpu": 1}) as pipeline:
            places = pipeline.where()
            assert len({place.node for place in places.values()}) == 3, "one part a machine"
            assert bytes_of(pipeline.run(inputs)) == wanted

            results = pipeline.run(inputs)
            got = [next(results) for _ in range(5)]
            os.kill(places["segment 2"].pid, signal.SIGKILL)
            got += results
            assert bytes_of(got) == wanted, "an actor that dies is started again, and what was under way replayed"
            assert pipeline.where()["segment 2"].pid != places["segment 2"].pid

            lost = next(n for n in machines.others if n.node_id == pipeline.where()["segment 3"].node)
            spare = machines.add_node(num_cpus=1, resources={"edgetpu": 1})
            results = pipeline.run(inputs)
            got = [next(results) for _ in range(5)]
            machines.remove_node(lost)
            got += results
            assert bytes_of(got) == wanted, "a machine that goes is replaced by a spare one"
            assert pipeline.where()["segment 3"].node == spare.node_id

    def test_a_part_that_no_machine_can_take(self, machines: Any, tmp_path: Path) -> None:
        job = read_job(write_split(tmp_path, straight(2), ["s2"]))
        with pytest.raises(RunError, match=r"no machine has room for segment 2 within 8 s \(free: .*edgetpu"):
            open_cluster(
                job,
                address=machines.address,
                resources={"edgetpu": 1},
                for_part={"segment 2": {"camera": 1}},
                wait_s=8,
            )

    def test_a_local_cluster_several_inputs_and_errors(self, tmp_path: Path) -> None:
        folder = write_split(tmp_path / "split", branched(), ["early", "late"], ["left", "right"])
        job = read_job(folder)
        pairs = [(images(1, seed=2 * n)[0], images(1, seed=2 * n + 1)[0]) for n in range(20)]
        few = {"num_cpus": 2}
        with open_cluster(job, resources={"CPU": 0.25}, local_options=few) as pipeline:
            assert bytes_of(pipeline.run(pairs)) == wanted_of(job, pairs)
            mixed = list(pipeline.run([pairs[0], "nothing", pairs[1]], failures="return"))
            assert "input number 21" in str(mixed[1])
            assert bytes_of([mixed[0], mixed[2]]) == wanted_of(job, pairs[:2])
        with pytest.raises(RunError, match="is closed"):
            pipeline.submit(pairs[0])
        with pytest.raises(RunError, match="has no file for usb"):
            open_cluster(job, device=parse_device("usb"), local_options=few)

        bundle(folder, tmp_path / "bundle")
        carried = read_job(tmp_path / "bundle")
        with open_cluster(
            carried, resources={"CPU": 0.25}, code=tmp_path / "bundle" / "graphcut", local_options=few
        ) as pipeline:
            assert bytes_of(pipeline.run(pairs)) == wanted_of(job, pairs)

    def test_an_input_that_fails_does_not_take_others_along(self) -> None:
        from tests.support.toy_interpreter import parts

        with ClusterPipeline(
            [part._replace(path=Path(__file__)) for part in parts(2)],
            opens_toys,
            settings=ClusterSettings(resources={"CPU": 0.25}, local_options={"num_cpus": 2}),
        ) as pipeline:
            results = list(pipeline.run(map(image, range(8)), failures="return"))
        for number, outputs in enumerate(results):
            if number == 3:
                assert isinstance(outputs, SegmentError)
                assert str(outputs) == "segment 1 failed on input 3: RuntimeError: not this one"
            else:
                assert np.array_equal(outputs[0], computed(image(number), 2))

    def test_the_verb(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = write_split(tmp_path / "split", straight(2), ["s2"])
        paths = []
        for number, array in enumerate(images(3)):
            paths.append(str(tmp_path / f"{number}.npy"))
            np.save(paths[-1], array)
        assert (
            main(["cluster", str(folder), *paths, "--needs", "CPU=0.5", "--json", "-o", str(tmp_path / "o.npz")]) == 0
        )
        document = json.loads(capsys.readouterr().out)
        assert [each["input"] for each in document["results"]] == paths
        assert set(document["parts"]) == {"segment 1", "segment 2"}
        job = read_job(folder)
        with np.load(tmp_path / "o.npz") as archive:
            assert [[archive[f"{n}/s2"].tobytes()] for n in (1, 2, 3)] == wanted_of(job, images(3))

    def test_many_models(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        zoo(tmp_path)
        assert main(["-q", "zoo", str(tmp_path / "zoo"), "-o", str(tmp_path / "far"), *ZOO, "--cluster"]) == 7
        capsys.readouterr()
        assert main(["zoo", str(tmp_path / "zoo"), "-o", str(tmp_path / "near"), *ZOO, "--json"]) == 7
        rows = json.loads(capsys.readouterr().out)["models"]
        assert [(row["model"], row["passed"]) for row in rows] == [("bad.onnx", False), ("good.onnx", True)]
        name = "good/full_split/tflite/seg1_int8.tflite"
        assert (tmp_path / "far" / name).read_bytes() == (tmp_path / "near" / name).read_bytes()

    def test_a_cluster_that_is_not_there(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = write_split(tmp_path / "split", straight(1), ["s1"])
        np.save(tmp_path / "x.npy", images(1)[0])
        began = time.monotonic()
        assert main(["cluster", str(folder), str(tmp_path / "x.npy"), "--address", "127.0.0.1:1"]) == 10
        assert "cannot reach the cluster at 127.0.0.1:1" in capsys.readouterr().err
        assert time.monotonic() - began < 120
        assert threading.active_count() < 50


ZOO = ["--calibration", "random", "--budget", "1MiB"]


def zoo(folder: Path) -> None:
    """A folder with a model and a file that is none."""
    (folder / "zoo").mkdir()
    nets.saved(nets.residual(), folder / "zoo").rename(folder / "zoo" / "good.onnx")
    (folder / "zoo" / "bad.onnx").write_bytes(b"no model")


def test_a_bug_in_one_model_leaves_the_others_their_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def explodes(*_: object, **__: object) -> None:
        raise KeyError("anchors")

    zoo(tmp_path)
    (tmp_path / "zoo" / "loop.onnx").symlink_to("loop.onnx")
    monkeypatch.setattr("graphcut.api.split", explodes)
    assert main(["zoo", str(tmp_path / "zoo"), "-o", str(tmp_path / "out"), *ZOO, "--json"]) == 7
    printed = capsys.readouterr()
    errors = {row["model"]: row["error"] for row in json.loads(printed.out)["models"]}
    assert errors["good.onnx"] == "a bug of graphcut (KeyError: 'anchors')"
    assert set(errors) == {"good.onnx", "bad.onnx", "loop.onnx"}
    assert "Traceback" in printed.err


def test_a_zoo_tells_what_came_of_every_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zoo(tmp_path)
    words = ["zoo", str(tmp_path / "zoo"), "-o", str(tmp_path / "out"), *ZOO]
    assert main(words) == 7
    said = capsys.readouterr()
    assert [line.split()[:3] for line in said.out.splitlines()[2:]] == [
        ["bad.onnx", "-", "NO"],
        ["good.onnx", "1", "yes"],
    ]
    assert "1 of 2 models failed: bad.onnx" in said.err
    assert read_job(tmp_path / "out" / "good").way == "chain"
    (tmp_path / "zoo" / "bad.onnx").unlink()
    assert main([*words, "--force", "-q"]) == 0
    assert main(["zoo", str(tmp_path / "out"), "-o", str(tmp_path / "x"), *ZOO]) == 2
    assert main(["zoo", str(tmp_path / "none"), "-o", str(tmp_path / "x"), *ZOO]) == 2


def opens_toys(part: Any, device: Any) -> Toy:
    """Toys of which the first refuses input 3."""

    def act(index: int, array: np.ndarray) -> None:
        if index == 1 and np.array_equal(array, image(3)):
            raise RuntimeError("not this one")

    return Toy(Bench(act=act), part, device)
