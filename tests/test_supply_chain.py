"""What cnnkit is installed from: versions with hashes, images with versions or digests."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PIN = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?==([\w.!+]+)")


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(path):
    """The entries of a lock file: the version of each package, and how many hashes it has."""
    entries = {}
    text = path.read_text().replace("\\\n", " ")
    for line in filter(None, (line.partition("#")[0].strip() for line in text.splitlines())):
        pin, *hashes = line.split(" --hash=")
        name, version = PIN.match(pin).groups()
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one.strip()) for one in hashes), name
        entries.setdefault(name, []).append((version, len(hashes)))
    return entries


def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {
        canonical(name): version
        for name, _, version in (line.partition("==") for line in lines if line[:1] != "#")
    }


def test_every_version_is_locked_with_a_hash():
    entries = locked(ROOT / "requirements" / "all.txt")
    wrong = {
        name: entries.get(name)
        for name, version in constraints().items()
        if {found for found, _ in entries.get(name, [])} != {version}
    }
    assert wrong == {}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_lock_agrees_with_the_constraints_and_names_no_index(path):
    pinned, everything = constraints(), locked(ROOT / "requirements" / "all.txt")
    entries = locked(path)
    assert len(entries) > 3
    for name, versions in entries.items():
        for version, hashes in versions:
            assert hashes, name
            assert pinned.get(name, version) == version, name
        assert path.name == "gpu.txt" or name in everything
    assert "://" not in path.read_text()
    assert not re.search(r"^\s*(-|--(?!hash=))", path.read_text().replace("    --hash", ""), re.M)


@pytest.mark.parametrize("image", ["Dockerfile.gpu", "serving/Dockerfile.client"])
def test_images_install_locked_packages_alone(image):
    installs = re.findall(r"^RUN (pip install .*)$", (ROOT / image).read_text(), re.MULTILINE)
    assert len(installs) == 2
    lock = re.search(r"--require-hashes -r (\w+\.txt)$", installs[0])[1]
    assert f"COPY requirements/{lock} ./" in (ROOT / image).read_text()
    # What builds cnnkit itself is locked too.
    assert installs[1] == "pip install --no-cache-dir --no-deps --no-build-isolation ."
    assert "setuptools" in locked(ROOT / "requirements" / lock)
