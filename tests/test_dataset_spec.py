"""Names of datasets, checked without reading them."""

import pytest

from cnnkit._dataset_spec import (
    DATASET_SPECS,
    VOC_SPEC,
    check_dataset_spec,
    check_shards_folder,
    missing_folder,
)
from cnnkit.errors import DataError, UsageError


def test_kinds_and_folders(tmp_path):
    assert check_dataset_spec("digits") == ("digits", "")
    (tmp_path / ".cache").mkdir()
    for spec in (f"folder:{tmp_path}", f"folder:{tmp_path}#val"):
        with pytest.raises(DataError, match="is not a dataset. Expected: a subfolder for each cl"):
            check_dataset_spec(spec)
    (tmp_path / "cats").mkdir()
    assert check_dataset_spec(f"folder:{tmp_path}") == ("folder", str(tmp_path))
    assert check_dataset_spec(f"folder:{tmp_path}#val") == ("folder", f"{tmp_path}#val")
    (tmp_path / "index.npz").touch()
    assert check_dataset_spec(f"shards:{tmp_path}") == ("shards", str(tmp_path))
    both = (*DATASET_SPECS, VOC_SPEC)
    assert check_dataset_spec(f"voc:{tmp_path}", both) == ("voc", str(tmp_path))


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("digits:8", "Unknown dataset 'digits:8'"),
        ("", "Unknown dataset ''"),
        ("foldr:x", "Unknown dataset 'foldr:x'"),
        ("imagenet:", "lacks its name. Expected: imagenet:PATH"),
        ("imagenet:/no/such#val", "No folder /no/such#val. Expected: imagenet:PATH"),
        ("folder:#val", "No folder #val"),
        ("shards:none", "No index of shards in none. Expected: a folder with index.npz"),
        ("voc:.", "has several classes per image"),
    ],
)
def test_wrong_names_are_refused(spec, text):
    with pytest.raises(UsageError) as error:
        check_dataset_spec(spec)
    assert text in str(error.value)


def test_a_missing_folder_is_named():
    assert "No folder x. Expected: voc:PATH of an existing folder" in str(
        missing_folder("voc", "x")
    )


def test_shards_go_to_a_folder_without_other_files(tmp_path):
    check_shards_folder(tmp_path / "new")
    (tmp_path / "train-00000.tfrecord").touch()
    (tmp_path / ".aside-1").mkdir()
    check_shards_folder(tmp_path)
    (tmp_path / "config.json").touch()
    with pytest.raises(UsageError, match="is not empty"):
        check_shards_folder(tmp_path)
