"""What cnnkit is installed from: versions with hashes, images with versions or digests."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

import cnnkit

ROOT = Path(__file__).resolve().parents[1]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
sys.path.insert(0, str(ROOT / "serving"))

import pin_images  # noqa: E402

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
            # TensorFlow without its code for GPUs has the versions of the other one.
            assert pinned.get(name.removesuffix("-cpu"), version) == version, name
        assert path.name == "gpu.txt" or name == "tensorflow-cpu" or everything[name] == versions
    assert "://" not in path.read_text()
    assert not re.search(r"^\s*(-|--(?!hash=))", path.read_text().replace("    --hash", ""), re.M)


@pytest.mark.parametrize(
    "image", ["Dockerfile.gpu", "serving/Dockerfile.client", "serving/embedded/Dockerfile"]
)
def test_images_install_locked_packages_alone(image):
    text = (ROOT / image).read_text().replace("\\\n", " ")
    installs = re.findall(r"pip install ([^&\n]*[^&\s])", text)
    assert installs.pop() == "--no-cache-dir --no-deps --no-build-isolation ."
    for place, install in enumerate(installs):
        lock = re.search(r"--require-hashes .*-r (\w+\.txt)$", install)[1]
        assert f"requirements/{lock}" in text
        # Packages without a wheel, and cnnkit itself, are built by a setuptools with a hash.
        entries = locked(ROOT / "requirements" / lock)
        assert "setuptools" in entries
        assert "--no-build-isolation" in install or "promise" not in entries
        assert place or "--no-build-isolation" not in install


# Images that are built from this checkout.
OWN = {f"{name}:{cnnkit.__version__}" for name in ("cnnkit-gpu", "cnnkit-server")}


def references(root):
    """Every container image of others that a file names, as (file, image)."""
    for pattern in ("**/Dockerfile*", "**/*.yaml", "**/*.yml", "**/*.md"):
        for path in sorted(root.glob(pattern)):
            top = path.relative_to(root).parts[0]
            text = "" if top.startswith((".venv", "build")) else path.read_text()
            if path.suffix == ".md":
                text = text.replace("\\\n", " ")
                found = re.findall(
                    r"^docker run .*?\s([\w.-]+/[\w.:@/-]+)\s+--", text, re.MULTILINE
                )
            elif path.suffix in (".yaml", ".yml"):
                found = re.findall(r"^\s+(?:- )?image: (\S+)$", text, re.MULTILINE)
                assert "newTag" not in text
            else:
                found = re.findall(r"^FROM (?:--\S+ )?(\S+)", text, re.MULTILINE)
            for image in (re.sub(r"\$\{\w+:-(.*)\}", r"\1", one) for one in found):
                if image not in OWN:
                    yield path.relative_to(root).as_posix(), image


def test_every_image_has_a_version():
    images = list(references(ROOT))
    assert {file for file, _ in images} == {*pin_images.FILES, "serving/README.md"}
    for _, image in images:
        assert re.fullmatch(r"[\w./-]+:\d+\.[\w.-]+(@sha256:[0-9a-f]{64})?", image), image
    versions = {image.partition("@")[0] for _, image in images}
    assert len({image.partition(":")[0] for image in versions}) == len(versions)


@pytest.fixture
def checkout(tmp_path):
    for name in pin_images.FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def answering(monkeypatch, tmp_path, script):
    """Puts a program in place of docker; it sees the image as the last of its arguments."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/bash\nimage="${{!#}}"\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")


def test_digests_are_written_beside_the_versions(checkout, monkeypatch):
    before = dict(references(checkout))
    for digit in "01":  # Another digest of the same version replaces the first.
        digest = f"sha256:{digit * 64}"
        answering(monkeypatch, checkout, f'[[ $image != *@* ]] && echo "{digest}"')
        pin_images.main(checkout)
        assert dict(references(checkout)) == {
            file: f"{image.partition('@')[0]}@{digest}" for file, image in before.items()
        }
    compose = (checkout / "serving/compose.yaml").read_text()
    assert f"image: ${{TF_SERVING:-tensorflow/serving:2.21.0@{digest}}}\n" in compose


@pytest.mark.parametrize(
    "script",
    [
        "echo no such host >&2; exit 1",
        "echo latest",
        'case $image in python*) echo sha256:$(printf "a%.0s" {1..64}) ;; *) exit 1 ;; esac',
    ],
)
def test_nothing_is_written_unless_every_registry_answers(checkout, monkeypatch, script):
    before = {name: (checkout / name).read_bytes() for name in pin_images.FILES}
    answering(monkeypatch, checkout, script)
    with pytest.raises(SystemExit, match=r"^The registry must answer .* Received: .*$"):
        pin_images.main(checkout)
    assert {name: (checkout / name).read_bytes() for name in pin_images.FILES} == before


KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")


def files_with_keys(root):
    """The files that git knows in a folder, or would add, that hold a private key in PEM."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout
    files = [root / name for name in names.decode().split("\0") if name]
    return [path for path in files if path.is_file() and KEY.search(path.read_bytes())]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a checkout, not an archive")
def test_no_file_of_the_checkout_holds_a_private_key():
    assert files_with_keys(ROOT) == []


def test_a_private_key_is_found(tmp_path):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    key = tmp_path / "config.yaml"
    key.write_bytes(trustme.CA().issue_cert("localhost").private_key_pem.bytes())
    (tmp_path / "words").write_text("PRIVATE KEY")
    assert files_with_keys(tmp_path) == [key]
