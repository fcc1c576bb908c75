"""Wrong and damaged files: one line that names the file."""

import zipfile

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from cnnkit import load_model
from cnnkit.errors import UsageError
from cnnkit.models import alexnet, open_weights
from cnnkit.models.weights import weights_file
from tests.helpers.weights_files import caffe_layers, caffemodel, old_applications


def write_bytes(path, content=b""):
    path.write_bytes(content)
    return path


def test_wrong_files_are_named_in_one_line(small_alexnet, tmp_path):
    cases = {
        "not a weights file of a known format": write_bytes(
            tmp_path / "noise", bytes(range(256)) * 9
        ),
        "is not a weights file of a known format": write_bytes(
            tmp_path / "text", b"hello, world\n" * 9
        ),
        "of a known format": write_bytes(tmp_path / "empty"),
        "zip archive of an unknown format": tmp_path / "a.zip",
        "has no Keras weights": tmp_path / "b.h5",
        "layers of unknown names": tmp_path / "c.safetensors",
        "batch normalization": tmp_path / "d.safetensors",
        "arrays of unknown names": tmp_path / "e.npz",
        "has one array": tmp_path / "f.npy",
        "No weights file": tmp_path / "absent",
        "Layer 'conv1' of": tmp_path / "g.caffemodel",
    }
    kernel = np.zeros((4, 3, 2, 2), "f4")
    whole = caffemodel([("conv1", "Convolution", "data", "conv1", [kernel], None)])
    # The blob states 5 x 3 x 2 x 2 numbers.
    cut = whole.replace(bytes([10, 4, 4, 3, 2, 2]), bytes([10, 4, 5, 3, 2, 2]))
    assert cut != whole
    write_bytes(tmp_path / "g.caffemodel", cut)

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme", "")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"] = 1
    save_file({"layer1.weight": np.zeros((2, 2), "f4")}, tmp_path / "c.safetensors")
    save_file({"features.1.running_mean": np.zeros(2, "f4")}, tmp_path / "d.safetensors")
    np.savez(tmp_path / "e.npz", x=np.zeros(3))
    np.save(tmp_path / "f.npy", np.zeros(3))
    for text, path in cases.items():
        with pytest.raises(UsageError) as error:
            open_weights(path)
        assert text in str(error.value)
        assert path.name in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["small.npz", "small.keras", "small.safetensors", "small.h5",
                                  "small.caffemodel"])  # fmt: skip
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_truncated_file_is_named_in_one_line(small_alexnet, name, kept):
    model = load_model(small_alexnet / "small.keras")
    if name == "small.safetensors":
        save_file({"features.0.weight": np.zeros((64, 3, 3, 3), "f4")}, small_alexnet / name)
    elif name == "small.h5":
        rows = [(layer.name, *layer.get_weights()) for layer in model.layers if layer.weights]
        old_applications(small_alexnet / name, rows)
    elif name == "small.caffemodel":
        (small_alexnet / name).write_bytes(caffemodel(caffe_layers(model)))
    content = (small_alexnet / name).read_bytes()
    torn = write_bytes(small_alexnet / "torn", content[: int(kept * len(content))])
    with pytest.raises(UsageError) as error:
        alexnet(include_top=False, weights=torn)
    assert "torn" in str(error.value)
    assert "incomplete" in str(error.value)


def test_a_changed_byte_is_found_where_the_format_has_checksums(small_alexnet):
    content = bytearray((small_alexnet / "small.npz").read_bytes())
    content[len(content) // 2] ^= 255
    changed = write_bytes(small_alexnet / "changed.npz", bytes(content))
    with pytest.raises(
        UsageError, match="changed.npz is damaged or incomplete. Received: Bad CRC-32"
    ):
        alexnet(include_top=False, weights=changed)


@pytest.mark.parametrize("inside_keras", [False, True])
def test_numbers_that_lie_in_another_file_are_not_copied(tmp_path, small_alexnet, inside_keras):
    """A converted file would contain them: the bytes of any file that the user can read."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"password" * 1000)
    weights = tmp_path / "model.weights.h5"
    with h5py.File(weights, "w") as file:
        group = file.create_group("layers/conv2d/vars")
        group.create_dataset("0", (5, 5, 3, 4), "f4", external=[(str(secret), 0, 1200)])
    if inside_keras:
        path = tmp_path / "model.keras"
        with (
            zipfile.ZipFile(small_alexnet / "small.keras") as old,
            zipfile.ZipFile(path, "w") as new,
        ):
            new.writestr("config.json", old.read("config.json"))
            new.write(weights, "model.weights.h5")
        weights = path
    with pytest.raises(UsageError, match="layers/conv2d/vars/0 .* lies in other files"):
        open_weights(weights)


def test_numbers_are_read_in_blocks_of_rows(monkeypatch):
    monkeypatch.setattr(weights_file, "BLOCK_BYTES", 64)
    values = np.arange(70.0)
    read = []
    # A row has 10 numbers of 4 bytes: one fits, and of 2 numbers eight.
    for shape, rows in (((7, 5, 2), 1), ((35, 2), 8), ((70,), 16)):
        flat = values.reshape(shape)
        tensor = weights_file.StoredTensor(
            "x", shape, lambda part, flat=flat: read.append(part) or flat[part]
        )
        parts = list(tensor.blocks())
        assert [part.stop - part.start for part, _ in parts[:-1]] == [rows] * (len(parts) - 1)
        np.testing.assert_array_equal(np.concatenate([block for _, block in parts]), flat)
        assert [part for part, _ in parts] == read
        read.clear()
    whole = weights_file.StoredTensor("x", (35, 2), tensor.read, read_whole=True)
    assert len(list(whole.blocks())) == 5 and read == [slice(None)]
    assert whole.array(8 * 70) is not None
    with pytest.raises(UsageError, match="x is too large. Expected: at most 69 numbers"):
        whole.array(8 * 70 - 1)


def test_layers_of_a_file_are_counted(small_alexnet):
    file = open_weights(small_alexnet / "small.npz")
    assert file.parameter_count == 2_334_080
    assert file.classes is None
    arrays = dict(np.load(small_alexnet / "small.npz"))
    np.savez(small_alexnet / "head.npz", fc8_W=np.zeros((7, 5), "f4"), **arrays)
    head = open_weights(small_alexnet / "head.npz", class_names="abcde")
    assert (head.classes, head.class_names) == (5, tuple("abcde"))
    assert head.parameter_count == 2_334_080 + 35
