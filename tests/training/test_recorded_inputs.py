"""Inputs that changed since a run began: pixels, labels and statistics; and old runs."""

import dataclasses
import hashlib
import json
import os

import numpy as np
import pytest
from PIL import Image

from cnnkit.cli.main import main
from cnnkit.data import load_dataset, write_shards
from cnnkit.errors import CnnkitError, RunError
from cnnkit.run_folder import RunFolder
from cnnkit.training import Callback, recorded_inputs, train
from tests.helpers.tiny_network import DIGITS_CONFIG

pytestmark = pytest.mark.usefixtures("unoptimized")


@pytest.fixture
def images(tmp_path):
    """Files of one size, whatever their pixels."""
    for name, value in (("dark", 20), ("light", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(5):
            pixels = np.full((8, 8, 3), value + i, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.bmp")
    return tmp_path / "images"


@pytest.fixture
def begin(tmp_path):
    """Begins a run, which can be resumed for one more epoch."""

    def run(dataset, **options):
        config = dataclasses.replace(DIGITS_CONFIG, dataset=dataset, epochs=1)
        run = train(config, tmp_path / "run", **options)

        class Messages(Callback):
            heard = ()

            def on_message(self, message):
                self.heard += (message,)

        def resume(**options):
            messages = Messages()
            longer = dataclasses.replace(run.config, epochs=len(run.metrics) + 1)
            train(longer, run.path, resume=True, callbacks=[messages], **options)
            return messages.heard

        return run, resume

    return run


def edit(file, *, keep_times=False):
    """Change the pixels of an image, and neither its name nor its size."""
    before = file.stat()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    # A time of another second, on any file system.
    times = before.st_mtime_ns + (0 if keep_times else 2_000_000_000)
    os.utime(file, ns=(times, times))


def test_other_pixels_under_the_same_name_are_noticed(images, begin):
    run, resume = begin(f"folder:{images}")
    edit(images / "light" / "3.bmp")
    with pytest.raises(
        RunError, match="The images of the split .* of folder:.* have changed since"
    ):
        resume()
    assert len(run.metrics) == 1
    edit(images / "light" / "3.bmp")
    resume()


def test_an_edit_that_keeps_size_and_time_is_found_by_verify(images, begin, capsys):
    run, resume = begin(f"folder:{images}")
    edit(images / "dark" / "0.bmp", keep_times=True)
    words = ["train", "--resume", "--output", str(run.path), "--epochs", "2", "--verify"]
    assert main(words) == 1
    assert "have changed since the run" in capsys.readouterr().err
    resume()
    assert len(run.metrics) == 2


def test_of_large_images_some_are_compared_and_all_with_verify(images, begin, monkeypatch):
    monkeypatch.setattr(recorded_inputs, "CONTENT_BYTES", 1)
    run, resume = begin(f"folder:{images}")
    assert run.environment["inputs"]["contents"]["train"]["images"] == 1
    for file in images.rglob("*.bmp"):
        os.utime(file, ns=(1, 1))
    [message] = [text for text in resume() if "checksums" in text]
    assert message.startswith("2 of 10 images were compared with their checksums")
    train(run.config, run.path, overwrite=True, verify=True)
    assert run.environment["inputs"]["contents"]["train"]["images"] == 8
    for file in images.rglob("*.bmp"):
        edit(file)
    with pytest.raises(RunError, match="have changed"):
        resume()


def test_edited_shards_are_noticed(tmp_path, images, begin):
    write_shards(load_dataset(f"folder:{images}"), tmp_path / "shards")
    _, resume = begin(f"shards:{tmp_path / 'shards'}")
    [shard] = (tmp_path / "shards").glob("train-*")
    data = bytearray(shard.read_bytes())
    # The last pixel of the last image, before the end of its record.
    where = bytes(data).rindex(b"BM")
    data[where + 60] ^= 1
    shard.write_bytes(data)
    os.utime(shard, ns=(1, 1))
    with pytest.raises(RunError, match="The images of the split train .* have changed"):
        resume()


def test_statistics_that_changed_are_noticed(begin):
    run, resume = begin("digits")
    file = run.path / "statistics.npz"
    stored = file.read_bytes()
    np.savez(file, mean=np.zeros(3))
    with pytest.raises(RunError, match="statistics.npz is not what the run began with"):
        resume()
    for damaged in (b"", b"\0" * len(stored), stored[:-30]):
        file.write_bytes(damaged)
        with pytest.raises(CnnkitError, match="statistics.npz"):
            resume()
    file.write_bytes(stored)
    assert resume() == ()


def test_labels_that_changed_are_noticed(begin):
    run, resume = begin("digits")
    for text, problem in (
        ("zero\n1\n2\n3\n4\n5\n6\n7\n8\n9\n", "Received: zero instead of 0"),
        ("0\n1\n", "does not list the 10 classes of digits. Received: 2 lines"),
        ("", "Received: 0 lines"),
    ):
        (run.path / "labels.txt").write_text(text)
        with pytest.raises(RunError, match=problem):
            resume()
    (run.path / "labels.txt").unlink()
    resume()
    assert run.class_names == tuple("0123456789")


def test_a_run_without_checksums_is_resumed(begin):
    run, resume = begin("digits")
    facts = run.environment
    del facts["inputs"]
    (run.path / "environment.json").write_text(json.dumps(facts))
    [message] = resume()
    assert message.startswith("the run recorded no checksums of its images")
    for wrong in (
        {"mean": np.full(3, np.nan)},
        {"mean": np.zeros((2, 2, 3))},
        {"other": [1.0]},
        {},
    ):
        np.savez(run.path / "statistics.npz", **wrong)
        with pytest.raises(RunError, match="statistics.npz is damaged"):
            resume()


def test_a_torn_environment_is_one_clear_line(begin):
    run, resume = begin("digits")
    torn = ("", "{", "[]", "{}", '{"dataset": 1}', '{"dataset": {"fingerprint": 5}}', "\0" * 20)
    for text in torn:
        (run.path / "environment.json").write_text(text)
        with pytest.raises(CnnkitError, match="environment.json"):
            resume()
    assert len(run.metrics) == 1


GOOD = {
    "mean": np.zeros(3, np.float32), "std": np.ones(3), "eigenvalues": np.ones(3),
    "eigenvectors": np.eye(3),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "values", "fits"),
    [
        ("mean", np.zeros((8, 8, 3), np.float32), True),
        ("mean", np.zeros(3, np.int64), False),
        ("mean", np.zeros((9, 8, 3)), False),
        ("mean", np.array([0, 0, np.inf]), False),
        ("std", np.ones((8, 8, 3)), False),
        ("eigenvalues", np.ones(2), False),
        ("eigenvectors", np.ones(3), False),
        ("variance", np.ones(3), False),
    ],
)
def test_statistics_have_the_shapes_of_this_version(tmp_path, name, values, fits):
    run = RunFolder(tmp_path)
    np.savez(run.path / "statistics.npz", **{**GOOD, name: values})
    if fits:
        assert recorded_inputs.check_statistics(run, 8).keys() == GOOD.keys()
        return
    with pytest.raises(RunError, match=f"statistics.npz is damaged. Received: {name}: .* of shape"):
        recorded_inputs.check_statistics(run, 8)


def test_the_digest_of_arrays_is_of_names_types_shapes_and_values():
    digest = recorded_inputs.digest_arrays
    mean, std = np.arange(3.0), np.ones(3)
    whole = digest({"mean": mean, "std": std})
    assert whole == digest({"std": std, "mean": mean})
    # By hand, in the order of the names.
    text = b"mean <f8 (3,)\n" + mean.tobytes() + b"std <f8 (3,)\n" + std.tobytes()
    assert whole == hashlib.sha256(text).hexdigest()
    transposed = np.asfortranarray(np.arange(4.0).reshape(2, 2))
    assert digest({"a": transposed}) == digest({"a": np.ascontiguousarray(transposed)})
