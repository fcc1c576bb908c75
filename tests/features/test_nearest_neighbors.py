"""The nearest vectors against all distances, and the command against the vectors themselves."""

import importlib
import json

import numpy as np
import pytest
from PIL import Image

from cnnkit.cli.main import main
from cnnkit.data import Decoding, load_dataset
from cnnkit.errors import DataError, UsageError
from cnnkit.features import (
    FeatureSpec,
    extract_features,
    find_neighbors,
    load_features,
    memory_estimate,
    nearest_neighbors,
    write_features,
)
from tests.helpers.small_network import network

pytestmark = pytest.mark.usefixtures("unoptimized")


@pytest.mark.parametrize("sizes", [(700,), (1, 300, 99, 300)])
def test_nearest_equals_all_distances_sorted(rng, monkeypatch, sizes):
    # Small blocks, near and equal vectors, and an offset that costs float32 its last digits.
    module = importlib.import_module("cnnkit.features.nearest_neighbors")
    monkeypatch.setattr(module, "BLOCK_BYTES", 50_000)
    vectors = (3000 + rng.normal(size=(700, 24))).astype(np.float32)
    vectors[500:520] = vectors[17]
    queries = np.concatenate([vectors[[17, 300]], 3000 + rng.normal(size=(3, 24))])
    parts = np.split(vectors, np.cumsum(sizes)[:-1])
    found = nearest_neighbors(queries, iter(parts), k=8)
    distances = np.linalg.norm(queries[:, None] - vectors[None].astype(np.float64), axis=2)
    order = np.argsort(distances, axis=1, kind="stable")[:, :8]
    np.testing.assert_array_equal(found.indices, order)
    np.testing.assert_allclose(found.distances, np.take_along_axis(distances, order, 1), rtol=1e-12)
    assert memory_estimate(700, 24, 5).blocks > 1


def test_what_cannot_be_searched(rng):
    vectors = rng.normal(size=(5, 3)).astype(np.float32)
    assert nearest_neighbors(vectors[:1], vectors, k=9).indices.shape == (1, 5)
    with pytest.raises(UsageError, match="`k` must be at least 1"):
        nearest_neighbors(vectors, vectors, k=0)
    with pytest.raises(UsageError, match="`queries` must have vectors of the same length"):
        nearest_neighbors(vectors[:, :2], vectors)
    with pytest.raises(DataError, match="no features"):
        nearest_neighbors(vectors, vectors[:0])
    vectors[3, 1] = np.nan
    with pytest.raises(DataError, match="image 3 are not finite"):
        nearest_neighbors(vectors[:1], vectors)
    with pytest.raises(DataError, match="features in `queries` must be finite"):
        nearest_neighbors(vectors[3:4], vectors[:2])


def test_the_command(image_folder, tmp_path, capsys):
    model, index, sheet = tmp_path / "net.keras", tmp_path / "features", tmp_path / "near.png"
    net = network()
    net.save(model)
    spec = f"folder:{image_folder}"
    words = ["features", str(model), "--dataset", spec, "--layer", "fc7", "--output", str(index)]
    assert main(words) == 0
    capsys.readouterr()
    query = image_folder / "below" / "05.png"
    words = ["neighbors", str(model), "--query", str(query), "--index", str(index), "--k", "4"]
    assert main([*words, "--output", str(sheet), "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["queries"]
    source = load_dataset(spec)
    features = extract_features(net, source, "fc7")
    place = next(i for i, name in enumerate(features.names) if name.endswith("below/05.png"))
    distances = np.linalg.norm(features.values - features.values[place], axis=1)
    order = np.argsort(distances, kind="stable")[:4]
    assert [one["index"] for one in row["neighbors"]] == order.tolist()
    assert [one["name"] for one in row["neighbors"]] == [features.names[i] for i in order]
    assert row["neighbors"][0]["file"] == str(query)
    assert row["neighbors"][0]["distance"] == pytest.approx(0, abs=1e-3)
    pixels = np.asarray(Image.open(sheet).convert("L"), float)
    # A query, a gap, four images: each fifth of the sheet holds a picture.
    assert all(part.std() > 10 for part in np.array_split(pixels, 5, axis=1))
    assert main(words[:-2]) == 0
    assert "below/05.png" in capsys.readouterr().out
    assert main([*words, "--output", str(tmp_path / "x.jpg")]) == 2
    assert main([*words[:3], str(tmp_path / "no.png"), *words[4:]]) == 2
    network(seed=2).save(model)
    assert main(words) == 2
    assert "features of another network" in capsys.readouterr().err


def test_the_seed_of_the_features_is_that_of_the_figure(image_folder, tmp_path, capsys):
    network().save(tmp_path / "net.keras")
    words = ["features", str(tmp_path / "net.keras"), "--dataset", f"folder:{image_folder}"]
    assert main([*words, "--seed", "3", "--output", str(tmp_path / "index")]) == 0
    query, picture = str(image_folder / "below" / "05.png"), tmp_path / "n.png"
    words = ["neighbors", str(tmp_path / "net.keras"), "--index", str(tmp_path / "index")]
    words += ["--query", query, "--output", str(picture)]
    capsys.readouterr()
    assert main(words) == 2
    assert "Name it with --dataset and --seed" in capsys.readouterr().err
    assert main([*words, "--seed", "3"]) == 0
    assert picture.exists()


def test_a_query_is_decoded_as_the_store_was(tmp_path, rng):
    """Photographs on their side: the nearest image to a file is the file itself, at distance 0."""
    for name in ("a/0", "a/1", "b/2", "b/3"):
        file = tmp_path / "images" / f"{name}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(rng.integers(0, 256, (40, 64, 3), np.uint8)).save(file, exif=exif)
    net, spec = network(), FeatureSpec("fc7")
    for store, decoding in (("new", Decoding()), ("old", Decoding(None, False))):
        source = load_dataset(f"folder:{tmp_path / 'images'}", decoding=decoding)
        write_features(net, source, spec, tmp_path / store)
        if store == "old":
            # As version 0.1.0 wrote it.
            index = tmp_path / store / "index.json"
            fields = json.loads(index.read_text())
            assert fields.pop("decoding") == {"background": None, "exif_orientation": False}
            index.write_text(json.dumps(fields))
        query = tmp_path / "images" / "b" / "3.jpg"
        [[nearest, second]] = find_neighbors(net, [query], tmp_path / store, k=2)
        assert nearest.name.endswith("3.jpg")
        assert nearest.distance < 1e-3 < second.distance
    values = load_features(tmp_path / "old")[1].values
    for part in (tmp_path / "old").glob("features-*"):
        part.unlink()
    write_features(net, load_dataset(f"folder:{tmp_path / 'images'}"), spec, tmp_path / "old")
    np.testing.assert_array_equal(load_features(tmp_path / "old")[1].values, values)
    assert np.abs(load_features(tmp_path / "new")[1].values - values).max() > 0.01
    black = load_dataset(f"folder:{tmp_path / 'images'}", decoding=Decoding((0, 0, 0)))
    with pytest.raises(UsageError, match="features of another decoding.*that of version 0.1.0"):
        write_features(net, black, spec, tmp_path / "old")
