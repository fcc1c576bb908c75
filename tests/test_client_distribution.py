"""cnnkit-client: the wheel of the client alone, built and imported without TensorFlow."""

import configparser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Imports the client and every module of it from a folder, where nothing but the named packages is.
PROBE = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
# Without the checkout that is installed for the tests.
sys.meta_path = [one for one in sys.meta_path if "editable" not in getattr(one, "__module__", "")]
for name in ("keras", "sklearn", "scipy", "tensorflow", "tqdm"):
    sys.modules[name] = None
import cnnkit.client, cnnkit.wire
for package in (cnnkit.client, cnnkit.wire):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
from cnnkit.client import Client
print(sys.modules[Client.__module__].__file__)
print(*sorted(name for name in sys.modules if name.partition(".")[0] == "cnnkit"))
try:
    from cnnkit import vgg16
except ImportError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*command, str(ROOT / "client")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [file] = folder.iterdir()
    return file


def modules_of(names):
    """Returns the modules that the files of a wheel are."""
    files = (name for name in names if name.endswith(".py"))
    return {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in files}


def test_wheel_holds_what_the_client_imports_and_nothing_else(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
        names = set(archive.namelist())
    assert wheel.stat().st_size < 200_000
    assert {"cnnkit/__init__.pyi", "cnnkit/py.typed"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROBE, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    file, imported, refused = done.stdout.splitlines()
    assert Path(file).is_relative_to(tmp_path)
    assert modules_of(names) == set(imported.split())
    assert refused == (
        "`cnnkit.vgg16` must be imported where cnnkit is installed: cnnkit-client holds"
        " `cnnkit.client` only. Install cnnkit in its place."
    )


def test_requirements_are_those_of_cnnkit():
    def required(file):
        parser = configparser.ConfigParser()
        parser.read(ROOT / file)
        return {line for line in parser["options"]["install_requires"].splitlines() if line}

    alone = required("client/setup.cfg")
    assert alone <= required("setup.cfg")
    lines = (ROOT / "serving" / "client-requirements.txt").read_text().splitlines()
    assert alone == {line for line in lines if not line.startswith("#")}
