"""benchmarks/gpu.sh in its tiny mode on a CPU, and what it leaves out."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from cnnkit.layers.max_pooling import IndexedMaxPooling2D

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import gpu

    return gpu


def test_the_tiny_mode_measures_a_network_and_writes_its_results(tmp_path):
    """With the backend that is installed here; `make test-backends` takes JAX."""
    file = tmp_path / "results.json"
    words = "--tiny --backend tensorflow --networks alexnet --policies float32 --output"
    done = subprocess.run(
        ["bash", str(FOLDER / "gpu.sh"), *words.split(), str(file)],
        env={**os.environ, "PYTHON": sys.executable},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert [row["step"] for row in found["networks"]] == ["forward", "train"]
    assert all(row["images_per_second"]["cnnkit"] > 0 for row in found["networks"])
    [share] = found["normalization"]
    assert share["network"] == "alexnet" and share["share_of_training"] < 1
    assert found["left_out"] == []
    assert "| alexnet | float32 | train |" in done.stdout


def test_what_fails_or_comes_too_late_is_named_and_the_rest_is_kept(gpu, monkeypatch, tmp_path):
    def fails(*_):
        raise RuntimeError("out of memory")

    listed = [
        ("networks", "vgg16", "float32", fails),
        ("normalization", "zfnet", "float32", lambda *_: [{"share_of_training": 0.04}]),
    ]
    monkeypatch.setattr(gpu, "work", lambda options: listed)
    monkeypatch.setattr(gpu.networks, "conditions", lambda options: {"card": "a card"})
    options = argparse.Namespace(seconds=60, output=tmp_path / "results.json")
    found = gpu.measured(options, print)
    assert found["left_out"] == ["networks vgg16 float32"]
    assert found["normalization"] == [{"share_of_training": 0.04}]
    assert json.loads(options.output.read_text()) == found
    options.seconds = -1
    assert len(gpu.measured(options, print)["left_out"]) == 2


def test_a_peer_that_cannot_be_compiled_is_left_out_and_said(gpu, monkeypatch, capsys):
    def fails(*_, kind, **__):
        raise RuntimeError(f"\nInvalidCxxCompiler: no compiler for {kind}\nmore")

    monkeypatch.setattr(gpu.networks, "peer_steps", fails)
    options = argparse.Namespace(device="cpu")
    assert gpu.networks.prepared("compiled", None, (), "float32", options) is None
    assert "InvalidCxxCompiler: no compiler for compiled" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="contiguous"):
        gpu.networks.prepared("contiguous", None, (), "float32", options)


def test_the_table_shows_the_ratio_to_the_fastest_peer_and_memory_in_gib(gpu):
    row = {
        "network": "alexnet", "policy": "mixed_bfloat16", "step": "train", "ratio": 1.25,
        "images_per_second": {"cnnkit": 25000.4, "compiled": 20000},
        "peak_memory_of_training": {"cnnkit": 3 * 2**30, "compiled": None},
    }  # fmt: skip
    found = {
        "card": "a card", "batch": 128, "date": "2026-11-27", "versions": {"jax": "0.11"},
        "networks": [row], "normalization": [], "deconvnet": [], "left_out": ["deconvnet vgg16"],
    }  # fmt: skip
    text = gpu.tables(found)
    assert "| alexnet | mixed_bfloat16 | train | 25,000 | - | - | 20,000 | 1.25 | 3.0 |" in text
    assert text.endswith("- not measured: deconvnet vgg16")


@pytest.mark.parametrize("kind", [keras.layers.MaxPooling2D, IndexedMaxPooling2D])
def test_the_peer_pools_as_the_network_does(gpu, kind):
    """The pooling of the networks depends on the backend of Keras."""
    pytest.importorskip("torch")
    from torch_networks import peer

    model = keras.Sequential([keras.Input((4, 4, 3)), kind(2, 2), keras.layers.Flatten()])
    images = np.arange(48, dtype="float32").reshape(1, 4, 4, 3)
    expected = np.asarray(model(images)).reshape(2, 2, 3).transpose(2, 0, 1).ravel()
    other = peer(model, "cpu", "contiguous")(gpu.networks.peer_images(images, "cpu", "contiguous"))
    np.testing.assert_array_equal(other.numpy()[0], expected)
