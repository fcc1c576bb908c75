"""The photographs of the comparison."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cnnkit.data import Augmentation, Decoding
from cnnkit.errors import DataError, UsageError
from cnnkit.export.formats.photographs import own_photographs, read_photographs


def test_eight_windows_of_two_photographs():
    windows = own_photographs(32)
    assert windows.shape == (8, 32, 32, 3) and windows.dtype == np.uint8
    # All different, and each as varied as a photograph.
    assert len({window.tobytes() for window in windows}) == 8
    assert windows.reshape(8, -1).std(axis=1).min() > 20


def test_photographs_of_a_folder_are_cropped_as_in_evaluation(tmp_path, rng):
    pixels = rng.integers(0, 256, (12, 20, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("")
    [found] = read_photographs(tmp_path, Augmentation(12), Decoding())
    np.testing.assert_array_equal(found, pixels[:, 4:16])


def test_at_most_500_are_read_evenly(tmp_path, monkeypatch):
    for i in range(10):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
    monkeypatch.setattr("cnnkit.export.formats.photographs.MAX_PHOTOGRAPHS", 5)
    found = read_photographs(tmp_path, Augmentation(4), Decoding())
    assert found[:, 0, 0, 0].tolist() == [0, 2, 4, 6, 8]


def test_no_more_than_500_photographs_are_opened(monkeypatch):
    module, opened = "cnnkit.export.formats.photographs", []
    monkeypatch.setattr(f"{module}.find_image_files", lambda folder: (list(range(1000)), 0))
    monkeypatch.setattr(f"{module}.read_image_file", lambda file, _: opened.append(file))
    monkeypatch.setattr(f"{module}.augment_image", lambda *_: tf.zeros((1, 1, 3)))
    assert len(read_photographs("folder", Augmentation(1), Decoding())) == 500
    assert opened == list(range(0, 1000, 2))


def test_files_that_are_no_photographs(tmp_path):
    with pytest.raises(UsageError, match="no image files"):
        read_photographs(tmp_path, Augmentation(4), Decoding())
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"broken\.png"):
        read_photographs(tmp_path, Augmentation(4), Decoding())
