"""Saved classifiers: against the pipeline that was fitted, refused files, the command."""

import dataclasses
import json
import pickle
import shutil

import numpy as np
import pytest
import skops.io
import tensorflow as tf
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer
from sklearn.svm import LinearSVC

from cnnkit._file_tree import CLASSIFIER_FILE
from cnnkit.cli.main import main
from cnnkit.data import load_dataset
from cnnkit.errors import DataError, UsageError
from cnnkit.features import extract_features, select_features_split, split_from_files
from cnnkit.transfer import LinearProbe, extract_layers, fit_linear_classifier, load_linear_probe
from cnnkit.transfer.linear_probe import PIPELINE, names_own_networks
from tests.helpers.small_network import network


@pytest.fixture(scope="module")
def net():
    return network()


@pytest.fixture(scope="module")
def source(image_folder):
    return load_dataset(f"folder:{image_folder}")


def fitted(net, source, classifier="svm"):
    described = extract_layers(net, select_features_split(source), ["pool1"])
    pipeline, c = fit_linear_classifier(
        described.values[0], select_features_split(source).labels, classifier
    )
    return LinearProbe.from_features(
        described,
        pipeline,
        c,
        classes=source.class_names,
        classifier=classifier,
        multilabel=False,
        dataset=source.spec,
        fingerprint=source.fingerprint,
        images=len(select_features_split(source)),
    )


@pytest.mark.parametrize("classifier", ["svm", "softmax"])
def test_what_is_read_answers_as_what_was_written(net, source, tmp_path, classifier):
    before = fitted(net, source, classifier)
    before.save(tmp_path / "saved")
    after = load_linear_probe(tmp_path / "saved")
    assert isinstance(after.pipeline, Pipeline)
    assert after.spec.image_size == 23
    assert (after.classes, after.identities, after.c) == (
        before.classes,
        before.identities,
        before.c,
    )
    values = extract_features(net, source, "pool1").values
    scores = after.predict(net, select_features_split(source), batch_size=7)
    if classifier == "softmax":
        np.testing.assert_allclose(scores, before.pipeline.predict_proba(values), atol=1e-5)
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)
    else:
        expected = before.pipeline.decision_function(values)
        np.testing.assert_allclose(scores, np.stack([-expected, expected], 1), atol=1e-4)
    np.testing.assert_array_equal(scores.argmax(axis=1), before.pipeline.predict(values))
    with pytest.raises(UsageError, match="exists"):
        before.save(tmp_path / "saved")
    assert [entry.name for entry in tmp_path.iterdir()] == ["saved"]


def test_what_could_not_be_read_again_is_not_saved(net, source, tmp_path):
    probe = fitted(net, source)
    strange = make_pipeline(FunctionTransformer(np.sqrt), probe.pipeline[-1])
    with pytest.raises(UsageError, match="`pipeline` must be one of linear.*FunctionTransformer"):
        dataclasses.replace(probe, pipeline=strange).save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_another_network_is_refused(net, source, tmp_path):
    saved = fitted(net, source)
    with pytest.raises(UsageError, match=r"features of another network\. Expected: net, [0-9a-f]"):
        saved.predict(network(seed=2), select_features_split(source))
    with pytest.raises(UsageError, match="of another network"):
        saved.predict([net, net], select_features_split(source))
    with pytest.raises(UsageError, match="`values` must have the dimension of the classifier"):
        saved.scores(np.zeros((1, 3), np.float32))


def test_nothing_half_written(net, source, tmp_path, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cnnkit.transfer.linear_probe.write_text", full)
    with pytest.raises(Exception, match="No space left"):
        fitted(net, source).save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


class Told:
    """What a file of somebody else's might hold."""

    ran = False

    def __reduce__(self):
        return setattr, (Told, "ran", True)


def test_files_that_are_no_classifier(net, source, tmp_path):
    folder = tmp_path / "saved"
    with pytest.raises(UsageError, match="No saved classifier"):
        load_linear_probe(folder)
    fitted(net, source).save(folder)
    good = (folder / PIPELINE).read_bytes()

    (folder / PIPELINE).write_bytes(pickle.dumps(Told()))
    with pytest.raises(DataError, match="is damaged or incomplete"):
        load_linear_probe(folder)
    assert not Told.ran

    (folder / PIPELINE).write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match="is damaged or incomplete"):
        load_linear_probe(folder)

    strange = make_pipeline(FunctionTransformer(network), LinearSVC())
    skops.io.dump(strange, folder / PIPELINE)
    with pytest.raises(
        DataError,
        match=r"not part of a linear scikit-learn classifier.*small_network\.network",
    ):
        load_linear_probe(folder)

    skops.io.dump({"a": 1}, folder / PIPELINE)
    with pytest.raises(DataError, match="not a saved pipeline. Received: dict"):
        load_linear_probe(folder)

    other = make_pipeline(Normalizer(), LinearSVC(dual=False))
    skops.io.dump(other.fit(np.eye(4), [0, 1, 0, 1]), folder / PIPELINE)
    with pytest.raises(DataError, match="Received: LinearSVC over 4"):
        load_linear_probe(folder)

    skops.io.dump(other.fit(np.eye(4), [0, 1, 0, 1])[:1], folder / PIPELINE)
    with pytest.raises(DataError, match=r"Received: Normalizer over 4"):
        load_linear_probe(folder)

    (folder / PIPELINE).write_bytes(good)
    load_linear_probe(folder)
    about = json.loads((folder / CLASSIFIER_FILE).read_text())
    for wrong in ({"format": 2}, {"protocol": {}}, {"classes": None}, {"color": "red"}):
        (folder / CLASSIFIER_FILE).write_text(json.dumps({**about, **wrong}))
        with pytest.raises((DataError, UsageError)):
            load_linear_probe(folder)
    (folder / CLASSIFIER_FILE).write_text(json.dumps(about)[:50])
    with pytest.raises(DataError, match="is not valid JSON"):
        load_linear_probe(folder)


def test_the_command(net, source, image_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    net.save("net.keras")
    words = ["transfer", "net.keras", "--dataset", f"folder:{image_folder}", "--layer", "pool1"]
    words += ["--per-class", "6", "--splits", "2", "--save", "saved"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "saved"
    # The classifier that is kept is fitted on all images; the splits only tell how good it is.
    saved = load_linear_probe("saved")
    images = select_features_split(source)
    values = extract_features(net, source, "pool1").values
    pipeline, c = fit_linear_classifier(values, images.labels)
    assert (saved.c, saved.images) == (c, 40)
    np.testing.assert_allclose(saved.pipeline[-1].coef_, pipeline[-1].coef_, atol=1e-4)
    assert 0.5 < saved.estimates["mean_class_recall"] <= 1

    # From another folder: where the network is was kept as a whole path.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    files = [str(image_folder / name) for name in ("above/00.jpg", "below/03.png")]
    assert main(["transfer", "predict", "../saved", *files, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    scores = saved.predict(net, split_from_files(files))
    for row, file, expected in zip(document["images"], files, scores, strict=True):
        assert row["image"] == file
        assert row["labels"] == [("above", "below")[expected.argmax()]]
        np.testing.assert_allclose(list(row["scores"].values()), expected, atol=1e-5)
    assert "accuracy" not in document

    # A copy may come from somebody else: the files that it names are not opened.
    shutil.copytree("../saved", "copy")
    assert not names_own_networks("copy")
    assert main(["transfer", "predict", "copy", *files]) == 2
    said = capsys.readouterr().err
    assert "copy was not written here" in said and f"{tmp_path}/net.keras" in said
    assert main(["transfer", "predict", "copy", *files, "--network", "../net.keras"]) == 0
    capsys.readouterr()

    assert main(["transfer", "predict", "../saved", "--dataset", f"folder:{image_folder}"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    right = (pipeline.predict(values) == images.labels).mean()
    assert last == f"accuracy {right:.1%} of 40 images (it was fitted on this dataset)"
    assert len(lines) == 40

    # So is a file that was changed where it lies.
    (tmp_path / "moved").mkdir()
    shutil.move("../saved", "../moved/saved")
    assert names_own_networks("../moved/saved")
    file = tmp_path / "moved" / "saved" / CLASSIFIER_FILE
    file.write_text(file.read_text().replace("net.keras", "not.keras"))
    assert not names_own_networks("../moved/saved")
    file.write_text(file.read_text().replace("not.keras", "net.keras"))
    shutil.move("../moved/saved", "../saved")

    network(seed=2).save("other.keras")
    mistakes = [
        (["../saved", files[0], "--network", "other.keras"], "features of another network"),
        (["../saved"], "`IMAGE` or --dataset must name the images"),
        (["../saved", "none.png"], "must be an existing image file, received none.png"),
        (["../saved", files[0], "--split", "test"], "--split requires --dataset SPEC"),
        (["../none", files[0]], "`SAVED` must be an existing folder"),
    ]
    for given, message in mistakes:
        assert main(["transfer", "predict", *given]) == 2
        assert message in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    for given, message in (
        (words, "--save must be a new folder, received"),
        ([*words[:-1], "s", "--classifier", "svm", "softmax"], "--save keeps one classifier"),
    ):
        assert main(given) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_images_of_classes_that_it_does_not_know_count_for_nothing(
    net, source, image_folder, tmp_path, capsys
):
    net.save(tmp_path / "net.keras")
    fitted(net, source).save(tmp_path / "saved")
    for name, kept in (("above", "above"), ("beside", "below")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for file in list((image_folder / kept).iterdir())[:4]:
            (tmp_path / "set" / name / file.name).write_bytes(file.read_bytes())
    words = ["transfer", "predict", str(tmp_path / "saved"), "--dataset", f"folder:{tmp_path}/set"]
    assert main(words) == 2
    assert "does not tell where its network is" in capsys.readouterr().err
    assert main([*words, "--network", str(tmp_path / "net.keras"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["of_images"] == 4
    answers = [r["labels"] == ["above"] for r in document["images"] if "above/" in r["image"]]
    assert document["accuracy"] == np.mean(answers)
    assert document["fitted_on_this_dataset"] is False
    assert tf.io.gfile.exists(str(tmp_path / "saved"))
