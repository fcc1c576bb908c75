"""Files that are made to harm: commands refuse them in one line, within memory and time.

`python -m tests.bombs` runs the same on any file. The tests without the marker `slow` try one bomb
of each kind; the others the whole zoo.
"""

import os

import pytest

from tests.bombs import commands
from tests.bombs.all_bombs import ZOO
from tests.bombs.confined import Confinement
from tests.bombs.zoo import sparse

SMALL = {
    # Weights: bytes, archives, HDF5, pickles, headers, configurations.
    "sparse.bin", "fifo.keras", "device.npz", "loop.keras", "layer.caffemodel", "whole.npy",
    "config-6g.keras", "inflating.npz", "overlap.npz", "encrypted.keras", "method.npz",
    "external.h5", "virtual.keras", "one-chunk.h5", "mean.h5", "deep-config.h5", "nan-config.h5",
    "memo-2g.pth", "system.pth", "load.npy", "deep.header.npy",
    "length.safetensors", "claims.safetensors", "layers.caffemodel", "named.caffemodel",
    "system.config.keras", "vocabulary.config.keras", "deep.config.keras",
    # Run folders, saved classifiers, lists, results.
    "sparse.metrics.jsonl", "fifo.metrics.jsonl", "deep.config.json", "deep.transfer.json",
    "secret.reference", "imagenet.reference", "6g.skops", "fifo.pipeline.skops", "system.skops",
    "sparse.txt", "type.changed.json", "deep.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def confinement():
    with Confinement() as confinement:
        yield confinement


@pytest.fixture
def folder(tmp_path):
    commands.prepare(tmp_path)
    return tmp_path


def attack(confinement, folder, bomb, names):
    path = commands.build(bomb, folder).name
    found = {}
    for name in names:
        outcome = commands.attack(confinement, folder, bomb.kind, name, path)
        wrong = commands.faults(outcome, folder, bomb.kind, name, path, harmless=bomb.harmless)
        if wrong:
            found[name] = wrong
    return found


@pytest.mark.parametrize(
    "bomb", [pytest.param(one, id=f"{one.kind}-{one.name}") for one in ZOO if one.name in SMALL]
)
def test_bombs_are_refused(confinement, folder, bomb):
    first = [name for name in commands.COMMANDS[bomb.kind] if name.endswith("*")]
    assert attack(confinement, folder, bomb, first) == {}


@pytest.mark.slow
@pytest.mark.parametrize("bomb", [pytest.param(one, id=f"{one.kind}-{one.name}") for one in ZOO])
def test_every_command_survives_every_bomb(confinement, folder, bomb):
    assert attack(confinement, folder, bomb, commands.COMMANDS[bomb.kind]) == {}


def test_small_matrix_names_bombs():
    assert {one.name for one in ZOO} >= SMALL
    assert len({(one.kind, one.name) for one in ZOO}) == len(ZOO)


@pytest.mark.parametrize(
    ("act", "noticed"),
    [
        ("fill_memory", "more than 300 MB"),
        ("map_file", "more than 300 MB"),
        ("spin", "more than 1 s"),
        ("wait", "waited for 0.3 s"),
        ("open_in_c", "opened"),
        ("open_in_python", "opened"),
        ("write", "wrote"),
        ("write_in_c", "wrote"),
        ("connect", "made a socket"),
        ("call_program", 'acted: ["subprocess.Popen'),
        ("unpickle", 'acted: ["pickle.find_class'),
        ("fail", "raw error: KeyError"),
    ],
)
def test_harness_notices(confinement, tmp_path, act, noticed):
    sparse(tmp_path / "map_file", size=2 << 30)
    os.mkfifo(tmp_path / "wait")
    (tmp_path / "secret").write_bytes(b"a")
    path = tmp_path / (act if (tmp_path / act).exists() else "secret" if "open" in act else "new")
    limits = {"megabytes": 300, "cpu_seconds": 1 if act == "spin" else 9, "idle_seconds": 0.3}
    entry = f"tests.bombs.misbehaving:{act}"
    outcome = confinement.run([str(path)], tmp_path, entry=entry, **limits)
    found = commands.faults(outcome, tmp_path, "weights", "inspect*", "bomb.h5", harmless=True)
    assert any(text.startswith(noticed) for text in found), (found, outcome)
