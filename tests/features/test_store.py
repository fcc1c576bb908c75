"""The feature store: written in parts, continued after a kill, merged, and refused files."""

import json
import signal

import numpy as np
import pytest

from cnnkit.cli.main import main
from cnnkit.data import load_dataset
from cnnkit.errors import DataError, UsageError
from cnnkit.features import (
    FeatureSpec,
    extract_features,
    is_feature_store,
    load_features,
    merge_features,
    missing_parts,
    read_index,
    store,
    write_features,
)
from cnnkit.features.index import MAX_FEATURE_ROWS
from tests.helpers.processes import Processes
from tests.helpers.small_network import network

pytestmark = pytest.mark.usefixtures("unoptimized")


@pytest.fixture(scope="module")
def net():
    return network()


@pytest.fixture(scope="module")
def source(image_folder):
    return load_dataset(f"folder:{image_folder}")


def test_written_in_parts_by_two_machines_and_merged(net, source, tmp_path):
    spec = FeatureSpec("fc7")
    whole = extract_features(net, source, "fc7")
    for number in (0, 1):
        write_features(net, source, spec, tmp_path / f"{number}", shard=(number, 2), rows=7)
    assert missing_parts(tmp_path / "0", read_index(tmp_path / "0")) == 3
    with pytest.raises(
        DataError, match="3 of 6 parts of the features .* no complete features-00001.npy"
    ):
        load_features(tmp_path / "0")
    merge_features([tmp_path / "0", tmp_path / "1"], tmp_path / "both")
    index, found = load_features(tmp_path / "both")
    assert (index.images, index.dimension, index.parts) == (40, 7, 6)
    np.testing.assert_allclose(found.values, whole.values, atol=1e-6)
    np.testing.assert_array_equal(found.labels, whole.labels)
    assert found.names == whole.names
    assert found.classes == index.classes == ("above", "below")
    # One folder for both does the same.
    for number in (0, 1):
        write_features(net, source, spec, tmp_path / "one", shard=(number, 2), rows=7)
    np.testing.assert_array_equal(load_features(tmp_path / "one")[1].values, found.values)


def test_what_is_there_is_not_redone_and_what_is_torn_is(net, source, tmp_path):
    write_features(net, source, FeatureSpec("fc7"), tmp_path / "f", rows=7)
    files = sorted((tmp_path / "f").glob("*.npy"))
    whole = files[2].read_bytes()
    times = [file.stat().st_mtime_ns for file in files]
    files[2].write_bytes(whole[:-1])
    (tmp_path / "f" / "features-00004.json").unlink()
    counted = []
    write_features(net, source, FeatureSpec("fc7"), tmp_path / "f", rows=7, progress=counted.append)
    assert sum(counted) == 40
    again = [file.stat().st_mtime_ns for file in files]
    assert [a != b for a, b in zip(times, again, strict=True)] == [0, 0, 1, 0, 1, 0]
    assert files[2].read_bytes() == whole


def test_two_machines_may_begin_a_folder_at_once(net, source, tmp_path, monkeypatch):
    write_features(net, source, FeatureSpec("fc7"), tmp_path / "f", rows=7, shard=(0, 2))
    # The second machine looks, twice, before the first one has written its index.
    answers = iter([False, False])
    monkeypatch.setattr(
        store, "is_feature_store", lambda folder: next(answers, is_feature_store(folder))
    )
    write_features(net, source, FeatureSpec("fc7"), tmp_path / "f", rows=7, shard=(1, 2))
    assert missing_parts(tmp_path / "f", read_index(tmp_path / "f")) == 0


def test_features_of_something_else_are_refused(net, source, tmp_path):
    write_features(net, source, FeatureSpec("fc7"), tmp_path / "f", rows=7)
    before = {file.name: file.read_bytes() for file in (tmp_path / "f").iterdir()}
    others = [
        (network(seed=2), source, FeatureSpec("fc7"), "another network"),
        (net, source, FeatureSpec("fc8"), "another spec"),
        (net, source, FeatureSpec("fc7", flip=True), "another spec"),
        (net, load_dataset("digits"), FeatureSpec("fc7"), "another dataset"),
    ]
    for model, images, spec, message in others:
        rows = 7 if images is source else 2000
        with pytest.raises(UsageError, match=message):
            write_features(model, images, spec, tmp_path / "f", rows=rows)
        write_features(model, images, spec, tmp_path / message, rows=rows, split="all")
        with pytest.raises(UsageError, match=message):
            merge_features([tmp_path / "f", tmp_path / message], tmp_path / "merged")
        for file in (tmp_path / message).iterdir():
            file.unlink()
    assert {file.name: file.read_bytes() for file in (tmp_path / "f").iterdir()} == before
    assert not (tmp_path / "merged").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="holds other files"):
        write_features(net, source, FeatureSpec("fc7"), tmp_path / "full")
    for output, options, message in (
        ("full/letter.txt", {}, "letter.txt must be a folder, not a file"),
        ("new", {"rows": 0}, "`rows` must be from 1 to"),
        ("new", {"rows": MAX_FEATURE_ROWS + 1}, "`rows` must be from 1 to"),
        ("new", {"shard": (2, 2)}, "`shard` must be .* Received: 2/2"),
        ("new", {"shard": (-1, 2)}, "`shard` must be"),
        ("new", {"batch_size": 0}, "`batch_size` must be at least 1"),
    ):
        with pytest.raises(UsageError, match=message):
            write_features(net, source, FeatureSpec("fc7"), tmp_path / output, **options)
    assert not (tmp_path / "new").exists()


def test_labels_that_do_not_fit_are_refused(net, source, tmp_path):
    write_features(net, source, FeatureSpec("fc7"), tmp_path / "f")
    file = tmp_path / "f" / "features-00000.json"
    about = json.loads(file.read_text())
    for wrong in (2, -1):
        file.write_text(json.dumps({**about, "labels": [0] * 20 + [wrong] * 20}))
        with pytest.raises(DataError, match="do not fit the classes. Expected: 0 to 1. Received: "):
            load_features(tmp_path / "f")
    for change in ({"labels": [0] * 39}, {"names": ["a"] * 39}):
        file.write_text(json.dumps({**about, **change}))
        with pytest.raises(DataError, match="must have a name and a label for each image.*: 40"):
            load_features(tmp_path / "f")


def test_parts_of_at_most_64_megabytes():
    """Of vectors of 4,096 numbers 4,096 rows; 64 rows at least and 8,192 at most."""
    rows = [store._default_rows(dimension) for dimension in (4096, 4032, 1, 2048, 2049, 10**6)]
    assert rows == [4096, 4160, 8192, 8192, 8128, 64]


SCRIPT = """
import os, signal, sys
from cnnkit import _files
from cnnkit.cli.main import main
from cnnkit.features import store
real, count = store.write_text, 0
def write_text(path, text):
    global count
    count += 1
    if count == 3:  # the index, a whole part, and the second part's values without their names
        os.kill(os.getpid(), signal.SIGKILL)
    real(path, text)
store.write_text = write_text
store._default_rows = lambda dimension: 7
sys.exit(main(sys.argv[1:]))
"""


def test_goes_on_after_a_kill(net, source, image_folder, tmp_path, monkeypatch, capsys):
    net.save(tmp_path / "net.keras")
    words = ["features", str(tmp_path / "net.keras"), "--dataset", f"folder:{image_folder}"]
    words += ["--layer", "fc7", "--output", str(tmp_path / "f")]
    killed = Processes(tmp_path).execute(SCRIPT, *words)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "f" / "features-00001.npy").is_file()
    assert missing_parts(tmp_path / "f", read_index(tmp_path / "f")) == 5
    monkeypatch.setattr("cnnkit.features.store._default_rows", lambda dimension: 7)
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["missing"] == 0
    values = extract_features(net, source, "fc7").values
    np.testing.assert_allclose(load_features(tmp_path / "f")[1].values, values, atol=1e-6)


def test_the_command(net, image_folder, tmp_path, capsys):
    net.save(tmp_path / "net.keras")
    words = ["features", str(tmp_path / "net.keras"), "--dataset", f"folder:{image_folder}"]
    assert main([*words, "--scales", "24,30", "--output", str(tmp_path / "f")]) == 0
    said = capsys.readouterr().out
    assert "40 images" in said and "layer fc7 of net, 14 values each; complete" in said
    assert main(["features", "merge", str(tmp_path / "f"), "--output", str(tmp_path / "g")]) == 0
    assert "complete" in capsys.readouterr().out
    mistakes = [
        (words[:2], "--dataset must name the images"),
        ([*words, "--layer", "fc66"], "Unknown layer 'fc66'"),
        (
            [*words[:1], str(tmp_path / "none"), *words[2:]],
            "must be an existing run folder, model or weights file",
        ),
        (
            ["features", "random", *words[2:]],
            "--model must name the network that gets random weights",
        ),
        (["features", "merge"], "merge needs at least one DIR"),
    ]
    for given, message in mistakes:
        assert main([*given, "--output", str(tmp_path / "h")]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "h").exists()
    for option in (["--shard", "2/2"], ["--scales", "a"]):
        assert main([*words, *option, "--output", str(tmp_path / "h")]) == 2
