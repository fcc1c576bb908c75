"""Indices of feature stores, and the files that they name: of strangers, and damaged."""

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit.errors import DataError, UsageError
from cnnkit.features import load_features, merge_features, missing_parts, read_index
from tests.helpers.damage import changed_json, damaged, reads_or_refuses

STORED = Path(__file__).parents[1] / "data" / "saved_by_0_1_0" / "features"
INDEX = json.loads((STORED / "index.json").read_text())
NAMES = json.loads((STORED / "features-00000.json").read_text())


@pytest.fixture
def store(tmp_path):
    return Path(shutil.copytree(STORED, tmp_path / "store"))


@pytest.fixture(scope="module")
def changed_store(tmp_path_factory):
    return Path(shutil.copytree(STORED, tmp_path_factory.mktemp("store") / "store"))


def change(store, **fields):
    (store / "index.json").write_text(json.dumps({**INDEX, **fields}))


# Each hung for ever, or raised another error.
ABSURD = {
    "images": [10**18, 10**400, -5, 0, 1e308, True, "7"],
    "rows": [0, -1, 1.5, None, 10**18],
    "dimension": [0, -1, 10**30, "x"],
    "classes": [5, "abc", [1, None], {}],
    "identity": [[], None],
    "split": [7],
    "dataset": [{}],
    "format": [True, {"a": 1}],
    "protocol": [[], None, {**INDEX["protocol"], "scales": [10**12]},
                 {**INDEX["protocol"], "layer": 5}, {**INDEX["protocol"], "image_size": 10**30}],
    "decoding": [5, {}, {"background": [1, 2], "exif_orientation": True}],
    "color": ["red"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "values"), ABSURD.items())
def test_absurd_fields_are_refused(store, name, values):
    for value in values:
        change(store, **{name: value})
        with pytest.raises(DataError):
            load_features(store)


def test_more_parts_than_there_are_files_are_counted_at_once(store):
    change(store, images=10**6, rows=1)
    assert missing_parts(store, read_index(store)) == 10**6
    with pytest.raises(DataError, match="1000000 of 1000000 parts of the features .* are missing"):
        load_features(store)
    merge_features([store], store.parent / "merged")
    assert [file.name for file in (store.parent / "merged").iterdir()] == ["index.json"]


@pytest.mark.parametrize("name", ["index.json", "features-00000.json", "features-00000.npy"])
def test_files_that_never_end_are_not_opened(store, name):
    file = store / name
    file.unlink()
    os.mkfifo(file)
    with pytest.raises((DataError, UsageError)):
        load_features(store)
    file.unlink()
    file.symlink_to("/dev/zero")
    with pytest.raises((DataError, UsageError)):
        load_features(store)
    file.unlink()
    file.write_bytes(b"")
    os.truncate(file, 10 << 30)
    with pytest.raises(DataError, match=r"too large|are missing"):
        load_features(store)


@settings(max_examples=50)
@given(data=st.one_of(changed_json(INDEX), damaged((STORED / "index.json").read_bytes())))
def test_any_index_is_read_or_refused(changed_store, data):
    (changed_store / "index.json").write_bytes(data)
    reads_or_refuses(lambda: load_features(changed_store))


@settings(max_examples=50)
@given(data=st.one_of(changed_json(NAMES), damaged((STORED / "features-00000.json").read_bytes())))
def test_any_names_are_read_or_refused(changed_store, data):
    shutil.copytree(STORED, changed_store, dirs_exist_ok=True)
    (changed_store / "features-00000.json").write_bytes(data)
    reads_or_refuses(lambda: load_features(changed_store))


@settings(max_examples=50)
@given(data=damaged((STORED / "features-00000.npy").read_bytes()))
def test_any_vectors_are_read_or_refused(changed_store, data):
    shutil.copytree(STORED, changed_store, dirs_exist_ok=True)
    (changed_store / "features-00000.npy").write_bytes(data)
    reads_or_refuses(lambda: load_features(changed_store))
