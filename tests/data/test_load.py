"""Datasets by name."""

import pytest

from cnnkit.data import Decoding, image_path, load, load_dataset
from cnnkit.errors import UsageError


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("digit", "Unknown dataset 'digit'. Expected: one of digits, folder:PATH, imagenet:PATH, "
         "boxes:PATH, shards:PATH, tfds:NAME."),
        ("digit", "Did you mean digits?"),
        ("folder:", "lacks its name"),
        ("folder:/no/such", "No folder /no/such"),
        ("tfds:cifar1", "Did you mean tfds:cifar10"),
    ],
)  # fmt: skip
def test_unknown_datasets(spec, text):
    with pytest.raises(UsageError) as error:
        load_dataset(spec)
    assert text in str(error.value)


def test_a_dataset_is_opened_once_within_a_block(monkeypatch, image_folder):
    opened, open_dataset = [], load._open_dataset
    monkeypatch.setattr(
        load, "_open_dataset", lambda *args: opened.append(args[:2]) or open_dataset(*args)
    )
    spec = f"folder:{image_folder}"
    black = Decoding(background=(0, 0, 0))
    with load.open_datasets_once():
        first = load_dataset(spec)
        other = load_dataset(spec, decoding=black)
        load_dataset(spec, seed=1)
        with load.open_datasets_once():
            load_dataset(spec, seed=1)
        load_dataset(spec)
    load_dataset(spec)
    load_dataset(spec)
    assert opened == [(spec, 0), (spec, 1), (spec, 0), (spec, 0)]
    assert first.splits["test"].decoding != black
    assert other.splits["test"].decoding == black


def test_images_of_folders_have_a_path(image_folder):
    file = str(image_folder / "above" / "00.jpg")
    for kind in ("folder", "imagenet"):
        assert image_path(f"{kind}:{image_folder}", "above/00.jpg") == file
    assert image_path(f"folder:{image_folder}#val", "above/00.jpg") == file
    assert image_path(f"folder:{image_folder}", "above/none.jpg") is None
    for spec in ("digits", f"shards:{image_folder}", f"tfds:{image_folder}"):
        assert image_path(spec, "above/00.jpg") is None
