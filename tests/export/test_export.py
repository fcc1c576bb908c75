"""Exported versions: their files, their numbers, and failures."""

import contextlib
import importlib
import os
import resource
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from cnnkit import alexnet
from cnnkit._progress import no_progress
from cnnkit._staging import STAGING_LOCK, staging_folder
from cnnkit.data import Augmentation
from cnnkit.errors import RunError, UsageError
from cnnkit.export import ImageLimits, export, signature_context
from cnnkit.export.export import publish_version
from cnnkit.export.isolated_model import ModelLoadError, Response
from cnnkit.export.reference_outputs import ReferenceOutputs
from tests.helpers.exported_network import LABELS, skip_output_check

ONE = np.ones((1, 2), np.float32)
export_module = importlib.import_module("cnnkit.export.export")


def test_every_weight_is_stored_once(model, exported):
    stored = sum(file.stat().st_size for file in (exported / "variables").iterdir())
    assert stored <= 1.05 * 4 * model.count_params()


def test_loads_without_keras_and_cnnkit(exported):
    code = (
        "import sys; sys.modules['keras'] = None; sys.modules['cnnkit'] = None\n"
        "import tensorflow as tf\n"
        f"f = tf.saved_model.load({str(exported)!r}).signatures['serving_default']\n"
        "print(f(images=tf.zeros((2, 64, 64, 3)))['probabilities'].shape)"
    )
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(2, 6)"


def test_versions_count_up_and_nothing_else_is_left(model, tmp_path, monkeypatch):
    checked = []
    monkeypatch.setattr(export_module, "_check_outputs", lambda *given: checked.append(given[-1]))
    output = tmp_path / "animals"
    (output / "7").mkdir(parents=True)
    # A superscript and an Arabic digit are no version.
    for name in ("notes", "9²", "\u0669"):
        (output / name).mkdir()
    # What an export leaves that is killed: a folder that nobody locks.
    with staging_folder(output) as killed:
        pass
    (killed / "model").mkdir(parents=True)
    (killed / STAGING_LOCK).touch()
    only = {"signatures": ["serving_default"], "warmup": 0}
    assert export(model, LABELS, output, **only).name == "8"
    assert export(model, LABELS, output, version=3, **only, progress=checked).name == "3"
    assert checked == [no_progress, checked]
    names = sorted(path.name for path in output.iterdir())
    assert names == ["3", "7", "8", "9²", "notes", "\u0669"]
    assert not (output / "3" / "assets.extra" / "tf_serving_warmup_requests").exists()
    with pytest.raises(UsageError, match="Version 3 exists"):
        export(model, LABELS, output, version=3)


def test_two_exports_at_once_get_two_versions(model, tmp_path, monkeypatch):
    skip_output_check(monkeypatch)
    output, made = tmp_path / "animals", []
    together = threading.Barrier(2)
    publish = export_module.publish_version

    def at_once(*arguments):
        together.wait(timeout=120)
        return publish(*arguments)

    monkeypatch.setattr(export_module, "publish_version", at_once)
    threads = [
        threading.Thread(
            target=lambda: made.append(
                export(model, LABELS, output, signatures=["serving_default"])
            )
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(folder.name for folder in made) == ["1", "2"]
    assert sorted(path.name for path in output.iterdir()) == ["1", "2"]
    for folder in made:
        assert (folder / "saved_model.pb").is_file()


@pytest.mark.parametrize("most", [1 << 10, 1 << 20])
def test_a_full_disk_leaves_nothing(model, tmp_path, most, monkeypatch):
    """No file of this process may grow beyond `most` bytes: the weights do not fit."""
    skip_output_check(monkeypatch)
    output = tmp_path / "animals"
    (output / "1").mkdir(parents=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        with pytest.raises(RunError, match="could not be written.*Make room there"):
            export(model, LABELS, output, signatures=["serving_default"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in output.iterdir()] == ["1"]


def test_a_difference_is_found_and_nothing_is_published(model, tmp_path, monkeypatch, unoptimized):
    """A decoder that darkens every image: the bytes answer otherwise than the model."""
    right = signature_context.augment_bytes
    monkeypatch.setattr(
        signature_context, "augment_bytes", lambda *given, **options: right(*given, **options) * 0.5
    )
    with pytest.raises(RunError, match="signature serving_bytes differ from the model's"):
        export(model, LABELS, tmp_path / "animals", signatures=["serving_bytes"])
    assert not (tmp_path / "animals").exists()


def test_invalid_exports_are_refused(model, tmp_path):
    with pytest.raises(UsageError, match="Expected: 6 labels. Received: 2"):
        export(model, ["a", "b"], tmp_path / "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="`output` must be a model folder, not a file"):
        export(model, LABELS, tmp_path / "file")
    free = alexnet(include_top=False, pooling="avg")
    with pytest.raises(UsageError, match="built for one image size"):
        export(free, ["x"] * 256, tmp_path / "free")
    for options, text in (
        ({"dtype": "float16"}, "Unknown dtype 'float16'"),
        ({"signatures": ["explain"]}, "Did you mean explain_bytes"),
        ({"explain_layers": ["conv9"]}, "Unknown layer 'conv9'"),
        ({"features_layer": "fc9"}, "Unknown layer 'fc9'"),
        ({"top": 0}, "`top` must be 1 or more"),
        ({"version": 0}, "`version` must be 1 or more"),
        ({"warmup": 500}, r"`warmup` must be in 0..166 for 6 signatures.*Received: 500"),
        ({"augmentation": Augmentation(32)}, "Expected: 64 pixels. Received: 32"),
    ):
        with pytest.raises(UsageError, match=text):
            export(model, LABELS, tmp_path / "free", **options)
    with pytest.raises(UsageError, match="`pixels` must be 1 or more"):
        ImageLimits(pixels=0)
    assert ImageLimits(pixels=1).pixels == 1
    assert not (tmp_path / "free").exists()


def test_a_version_that_appeared_meanwhile_is_kept(tmp_path):
    saved, output = tmp_path / "saved", tmp_path / "net"
    for folder in (saved, output / "1"):
        folder.mkdir(parents=True)
        (folder / "model").write_text(folder.name)
    with pytest.raises(UsageError, match="Version 1 exists"):
        publish_version(saved, output, 1)
    assert (output / "1" / "model").read_text() == "1"
    assert publish_version(saved, output, None) == output / "2"
    with pytest.raises(FileNotFoundError):
        publish_version(saved, output, 5)


def test_files_larger_than_their_weights_are_refused(tmp_path):
    """5 % and 64 KiB more than the weights, and no byte more."""
    (tmp_path / "variables").mkdir()
    network = SimpleNamespace(weight_bytes=100_000)
    for size, fits in ((105_000 + 65_536, True), (105_001 + 65_536, False)):
        (tmp_path / "variables" / "data").write_bytes(bytes(size))
        with contextlib.nullcontext() if fits else pytest.raises(RunError, match="are larger than"):
            export_module._check_size(network, tmp_path)


def test_an_export_that_does_not_answer_as_the_model_is_refused(tmp_path, monkeypatch):
    references = ReferenceOutputs((b"x",), np.zeros((1, 2, 2, 3)), {"features": {"features": ONE}})
    network = SimpleNamespace(model=SimpleNamespace(name="net"), dtype="float32")
    given = []

    def ask(answer):
        def run(folder, requests, progress):
            given.append((folder, [request.signature for request in requests], progress))
            if isinstance(answer, Exception):
                raise answer
            return [answer]

        monkeypatch.setattr(export_module, "run_isolated", run)
        export_module._check_outputs(network, tmp_path, references, "bar")

    ask(Response("OK", "", {"features": ONE}))
    assert given == [(tmp_path, ["features"], "bar")]
    for answer, text in (
        (ModelLoadError("torn"), "The exported model 'net' cannot be loaded. Received: torn"),
        (Response(None, "SIGABRT", {}), "features fails. Received: a crash of its process: SIGAB"),
        (Response("INTERNAL", "why", {}), "signature features fails. Received: INTERNAL: why"),
        (Response("OK", "", {"features": ONE + 1}), "signature features differ from the model's"),
    ):
        with pytest.raises(RunError, match=text):
            ask(answer)
