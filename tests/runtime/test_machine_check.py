"""The doctor on machines that are folders: sticks, modules, rights, libraries and interpreters."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from graphcut import cli
from graphcut.runtime.machine_check import Finding, as_lines, examine

NOWHERE = "libnowhere-at-all.so"


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def stick(port: str, vendor: str, product: str, *, speed: int = 5000, number: int = 4) -> dict[str, str]:
    at = f"sys/bus/usb/devices/{port}"
    return {
        f"{at}/idVendor": f"{vendor}\n",
        f"{at}/idProduct": f"{product}\n",
        f"{at}/speed": f"{speed}\n",
        f"{at}/busnum": "2\n",
        f"{at}/devnum": f"{number}\n",
        f"dev/bus/usb/002/{number:03d}": "",
    }


def packages(**versions: str) -> Callable[[str], str]:
    def installed(name: str) -> str:
        if name.replace("-", "_") not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name.replace("-", "_")]

    return installed


ALL = packages(numpy="2.0", pillow="11", ai_edge_litert="1.3.0")


def of(found: tuple[Finding, ...], what: str) -> list[Finding]:
    return [each for each in found if each.what == what]


def test_sticks_before_and_after_their_firmware(tmp_path: Path) -> None:
    root = put(tmp_path, {**stick("2-1", "1a6e", "089a"), **stick("2-2", "18d1", "9302", number=5)})
    put(root, {"sys/bus/usb/devices/1-1/idVendor": "046d", "sys/bus/usb/devices/1-1/idProduct": "c077"})
    found = of(examine(root, library=NOWHERE, installed=ALL), "Edge TPU on USB")
    assert [each.state for each in found] == ["ok", "ok"]
    assert "without firmware" in found[0].said
    assert "ready" in found[1].said


def test_a_stick_in_a_slow_port(tmp_path: Path) -> None:
    root = put(tmp_path, stick("2-1", "18d1", "9302", speed=480))
    found = of(examine(root, library=NOWHERE, installed=ALL), "Edge TPU on USB")
    assert [each.state for each in found] == ["ok", "broken"]
    assert "USB 3" in found[1].way_out


@pytest.mark.parametrize(("rule", "said"), [(True, "plugdev"), (False, "udev rule")])
def test_a_stick_without_rights(tmp_path: Path, rule: bool, said: str) -> None:
    root = put(tmp_path, stick("2-1", "18d1", "9302"))
    (root / "dev/bus/usb/002/004").unlink()  # root may open what others may not, so the node is not there at all
    if rule:
        put(root, {"etc/udev/rules.d/60-libedgetpu1-std.rules": ""})
    (_, found) = of(examine(root, library=NOWHERE, installed=ALL), "Edge TPU on USB")
    assert found.state == "broken"
    assert said in found.way_out


def test_a_module_with_and_without_its_driver(tmp_path: Path) -> None:
    root = put(
        tmp_path,
        {"sys/bus/pci/devices/0000:01:00.0/vendor": "0x1ac1\n", "sys/bus/pci/devices/0000:01:00.0/device": "0x089a\n"},
    )
    put(root, {"proc/modules": "gasket 1 0 - Live 0\nsnd 1 0 - Live 0\n"})
    found = of(examine(root, library=NOWHERE, installed=ALL), "Edge TPU on PCIe")
    assert [each.state for each in found] == ["ok", "broken"]
    assert found[1].said == "kernel modules not loaded: apex"
    put(root, {"dev/apex_0": "", "proc/modules": "gasket 1\napex 1\n"})
    found = of(examine(root, library=NOWHERE, installed=ALL), "Edge TPU on PCIe")
    assert [each.state for each in found] == ["ok", "ok"]
    assert found[1].said == "/dev/apex_0"


def test_nothing_there(tmp_path: Path) -> None:
    found = examine(tmp_path, library=NOWHERE, installed=packages())
    broken = {each.what for each in found if each.state == "broken"}
    assert broken == {"numpy", "interpreter", "libedgetpu", "Edge TPUs"}
    assert all(each.way_out for each in found if each.state == "broken")
    lines = as_lines(found)
    assert len(lines) == len(found)
    assert not any("\n" in line for line in lines)


GOOGLE = "BuildLabel(COMPILER=6.3.0 20170516,DATE=redacted,TIME=redacted), RuntimeVersion(14)"
COMMUNITY = "BuildLabel(COMPILER=12.2.0,DATE=redacted,TIME=redacted,CL_NUMBER=1), RuntimeVersion(14)"


@pytest.mark.parametrize(
    ("label", "interpreter", "version", "fits"),
    [
        (GOOGLE, "tflite_runtime", "2.5.0.post1", True),
        (GOOGLE, "tflite_runtime", "2.11.1", True),
        (GOOGLE, "tflite_runtime", "2.14.0", False),
        (GOOGLE, "ai_edge_litert", "1.3.0", False),
        (COMMUNITY, "tflite_runtime", "2.14.0", True),
        (COMMUNITY, "ai_edge_litert", "1.3.0", True),
    ],
)
def test_whether_the_library_fits_the_interpreter(
    tmp_path: Path, compiled_library: Callable[[str], Path], label: str, interpreter: str, version: str, fits: bool
) -> None:
    library = compiled_library(label)
    found = of(
        examine(tmp_path, library=str(library), installed=packages(numpy="1", **{interpreter: version})), "libedgetpu"
    )
    assert found[0].said == label
    assert [each.state for each in found] == (["ok"] if fits else ["ok", "broken"])


@pytest.fixture(scope="module")
def compiled_library(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A library that calls itself what the test says."""
    import shutil
    import subprocess

    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("libraries")
    made: dict[str, Path] = {}

    def build(label: str) -> Path:
        if label not in made:
            source = folder / f"{len(made)}.c"
            source.write_text(f'const char *edgetpu_version(void) {{ return "{label}"; }}\n')
            made[label] = source.with_suffix(".so")
            subprocess.run(["cc", "-shared", "-fPIC", "-o", str(made[label]), str(source)], check=True)
        return made[label]

    return build


def test_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["doctor", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert {"Python", "numpy", "interpreter", "docker", "edgetpu_compiler", "libedgetpu"} <= {
        each["what"] for each in document["findings"]
    }
    assert code == (0 if document["ready"] else 9)


def test_the_real_machine_is_only_read() -> None:
    before = sorted(Path("/dev").iterdir())
    examine(library=NOWHERE)
    assert sorted(Path("/dev").iterdir()) == before
