"""HDF5 files that reach outside themselves, or declare what no machine holds."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from graphcut.errors import ModelError
from graphcut.sources import keras_check
from graphcut.sources.keras_layers import LAYERS, VOCABULARIES
from tests.support.places import SHARED

CONFIG = {
    "class_name": "Sequential",
    "config": {"name": "net", "layers": [{"class_name": "Conv2D", "config": {"name": "conv"}}]},
}


def model(path: Path, add: Callable[[h5py.File], None], config: Any = CONFIG) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        add(file)
    return path


def external_storage(file: h5py.File) -> None:
    file.create_dataset("model_weights/conv/kernel", (10,), "u1", external=[("/etc/passwd", 0, 10)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/secret.h5", "weights", (4,))
    file.create_virtual_dataset("model_weights/kernel", layout)


def external_link(file: h5py.File) -> None:
    file["model_weights"] = h5py.ExternalLink("/secret.h5", "/")


def layers_elsewhere(file: h5py.File) -> None:
    file["layers"] = h5py.ExternalLink("/secret.h5", "/")


def soft_link(file: h5py.File) -> None:
    file["model_weights"] = h5py.SoftLink("/elsewhere")


def terabytes(file: h5py.File) -> None:
    file.create_dataset("model_weights/kernel", (2**20, 2**20), "f4", chunks=(1, 2**10))


def references(file: h5py.File) -> None:
    file.create_dataset("model_weights/kernel", (3,), h5py.ref_dtype)


def foreign_filter(file: h5py.File) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((4,))
    properties.set_filter(32000, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(file.id, b"kernel", h5py.h5t.IEEE_F32LE, space, properties)


def circle(file: h5py.File) -> None:
    group = file.create_group("model_weights")
    group["again"] = group


def weights(file: h5py.File) -> None:
    file.create_dataset("model_weights/conv/kernel", data=np.zeros((3, 3, 4, 8), np.float32), compression="gzip")


@pytest.mark.parametrize(
    ("add", "said"),
    [
        (external_storage, "'/model_weights/conv/kernel' is stored in another file"),
        (virtual, "'/model_weights/kernel' uses data of other files"),
        (external_link, "'/model_weights' is a link, which"),
        (layers_elsewhere, "'/layers' is a link, which"),
        (soft_link, "'/model_weights' is a link, which"),
        (terabytes, "declares more than 4 GiB of weights (at '/model_weights/kernel')"),
        (references, "'/model_weights/kernel' is not numeric"),
        (foreign_filter, "'/kernel' needs filter 32000, which is not part of HDF5"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
@pytest.mark.parametrize("inside", [False, True], ids=["h5", "keras"])
def test_what_lies_elsewhere_is_refused(
    add: Callable[[h5py.File], None], said: str, inside: bool, tmp_path: Path
) -> None:
    path = model(tmp_path / "net.h5", add)
    if inside:
        with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
            archive.writestr("config.json", json.dumps(CONFIG))
            archive.write(path, "model.weights.h5")
        path = tmp_path / "net.keras"
    with pytest.raises(ModelError) as caught:
        keras_check.check({"path": str(path), "subject": "net"})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("add", [weights, circle])
def test_files_that_hold_their_own_weights_pass(add: Callable[[h5py.File], None], tmp_path: Path) -> None:
    keras_check.check({"path": str(model(tmp_path / "net.h5", add)), "subject": "net"})


@pytest.mark.parametrize("kind", sorted(VOCABULARIES))
def test_layers_that_read_vocabularies_are_refused_wherever_they_stand(kind: str, tmp_path: Path) -> None:
    lookup = {"class_name": kind, "config": {"name": "words", "vocabulary": "/etc/passwd"}}
    wrapped = {"class_name": "TimeDistributed", "config": {"name": "each", "layer": lookup}}
    for entry in (lookup, wrapped):
        config = {"class_name": "Sequential", "config": {"name": "net", "layers": [entry]}}
        path = model(tmp_path / "net.h5", weights, config)
        with pytest.raises(ModelError, match=rf"layer 'words' \({kind}\) looks up words in a vocabulary"):
            keras_check.check({"path": str(path), "subject": "net"})


def test_the_case_is_refused() -> None:
    path = SHARED / "cases" / "hostile" / "lookup_vocabulary.h5"
    if not path.is_file():
        pytest.skip("needs ../shared/cases")
    with pytest.raises(ModelError, match="looks up words in a vocabulary"):
        keras_check.check({"path": str(path), "subject": "net"})


def test_layers_that_nobody_knows_are_refused(tmp_path: Path) -> None:
    config = {"class_name": "Sequential", "config": {"layers": [{"class_name": "ReadsFiles", "config": {"name": "r"}}]}}
    with pytest.raises(ModelError, match="layer 'r' needs 'ReadsFiles', which is not part of Keras"):
        keras_check.check({"path": str(model(tmp_path / "net.h5", weights, config)), "subject": "net"})


def test_no_layer_is_both_allowed_and_refused() -> None:
    assert not LAYERS & VOCABULARIES
    assert not LAYERS & keras_check.CODE.keys()
    assert {"Conv2D", "Functional", "BatchNormalization", "DepthwiseConv2D"} <= LAYERS
