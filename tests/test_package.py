"""What a stranger installs: the wheel and the sdist, built and looked into."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def test_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[0]) as wheel:
        names = wheel.namelist()
        [metadata] = [wheel.read(name).decode() for name in names if name.endswith("/METADATA")]
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "cnnkit").rglob("*.py")}
    assert modules <= set(names)
    assert "cnnkit/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"cnnkit", "cnnkit-0.2.0.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "License-Expression: Apache-2.0" in metadata
    for extra in ("gpu", "report", "tensorboard", "dev"):
        assert f"Provides-Extra: {extra}" in metadata


def test_sdist_can_be_built_from(built):
    with tarfile.open(built[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"setup.cfg", "pyproject.toml", "LICENSE", "README.md", "cnnkit/py.typed"} <= names


def test_the_installed_wheel_imports(built, tmp_path):
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(built[0])], check=True)
    code = (
        "import cnnkit; print(cnnkit.__file__)\n"
        "import cnnkit.client, cnnkit.cli.main; print(*cnnkit.cli.main.command_names())\n"
        "from cnnkit import vgg16; print(vgg16(input_shape=(32, 32, 3)).count_params())\n"
    )
    env = {**os.environ, "PYTHONPATH": str(target), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    file, verbs, parameters = done.stdout.splitlines()
    assert Path(file).is_relative_to(target)
    assert "train" in verbs.split()
    assert int(parameters) == 14_714_688 + 512 * 4096 + 4096 + 4096 * 4097 + 4097 * 1000


def test_constraints_hold_versions_and_no_address():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 30
    for pin in pins:
        name, _, version = pin.partition("==")
        assert name
        assert version[0].isdigit()
        assert "/" not in pin
