"""Pipelines in .skops files: only linear estimators, each array once, nothing larger than it is."""

import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, PolynomialFeatures, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from cnnkit._untrusted import limits
from cnnkit.errors import DataError
from cnnkit.transfer import load_linear_probe
from cnnkit.transfer.pipeline_file import load_pipeline
from tests.helpers.damage import changed_json, damaged, reads_or_refuses

SAVED = Path(__file__).parents[1] / "data" / "saved_by_0_1_0" / "transfer_softmax"
FILE = SAVED / "pipeline.skops"
with zipfile.ZipFile(FILE) as archive:
    MEMBERS = {name: archive.read(name) for name in archive.namelist()}
SCHEMA = json.loads(MEMBERS["schema.json"])
METADATA = json.loads((SAVED / "transfer.json").read_text())
VALUES = np.random.default_rng(0).normal(size=(12, 8))
LABELS = np.arange(12) % 3


def packed(members, method=zipfile.ZIP_STORED):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def with_schema(change):
    schema = json.loads(json.dumps(SCHEMA))
    change(schema)
    return packed({**MEMBERS, "schema.json": json.dumps(schema)})


def settings_of(schema):
    """The settings of the logistic regression, by name."""
    return schema["content"]["content"]["steps"]["content"][-1]["content"][1]["content"]["content"]


@pytest.fixture
def saved(tmp_path):
    return Path(shutil.copytree(SAVED, tmp_path / "saved"))


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    return Path(shutil.copytree(SAVED, tmp_path_factory.mktemp("saved") / "saved"))


@pytest.mark.parametrize(
    "pipeline",
    [
        make_pipeline(Normalizer(), LinearSVC(dual=False)),
        make_pipeline(StandardScaler(), PCA(3), LogisticRegression()),
        make_pipeline(OneVsRestClassifier(RidgeClassifier())),
    ],
)
def test_linear_pipelines_are_loaded(pipeline, tmp_path):
    pipeline.fit(VALUES, LABELS)
    skops.io.dump(pipeline, tmp_path / "file.skops")
    loaded = load_pipeline(tmp_path / "file.skops")
    np.testing.assert_array_equal(
        loaded.decision_function(VALUES), pipeline.decision_function(VALUES)
    )


@pytest.mark.parametrize("step", [PolynomialFeatures(2), SVC(), DecisionTreeClassifier()])
def test_estimators_that_trust_the_numbers_in_the_file_are_refused(step, tmp_path):
    """skops loads the first two: with 60 for the degree, or with another number of vectors."""
    pipeline = make_pipeline(step, LinearSVC()) if hasattr(step, "transform") else step
    skops.io.dump(make_pipeline(pipeline.fit(VALUES, LABELS)), tmp_path / "file.skops")
    with pytest.raises(DataError, match=f"not part of a linear.*{type(step).__name__}"):
        load_pipeline(tmp_path / "file.skops")


def same_number(schema):
    steps = schema["content"]["content"]["steps"]
    steps["content"].append({**steps, "content": []})


def same_number_as_a_value(schema):
    settings_of(schema)["verbose"]["__id__"] = schema["__id__"]


def reference(schema):
    node = {"__class__": "Pipeline", "__module__": "sklearn.pipeline", "__loader__": "CachedNode"}
    schema["content"]["content"]["memory"] = {**node, "__id__": schema["__id__"]}


def control_characters(schema):
    settings_of(schema)["_sklearn_version"]["content"] = '"\\u001b[2J"'


def deep_value(schema):
    settings_of(schema)["verbose"]["content"] = "[" * 2000


def function(schema):
    node = {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode", "__id__": 7}
    settings_of(schema)["verbose"] = node


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (same_number, "names an object twice"),
        (same_number_as_a_value, "names an object twice"),
        (reference, "types that are not part of a linear"),
        (control_characters, "a number, or a text that can be printed"),
        (deep_value, "lists and objects inside each other"),
        (function, r"Received: os\.system"),
    ],
)
def test_schemas_that_skops_would_follow(saved, change, text):
    (saved / "pipeline.skops").write_bytes(with_schema(change))
    with pytest.raises(DataError, match=text):
        load_linear_probe(saved)


def npy(array, **header):
    data = io.BytesIO()
    np.save(data, array)
    text = data.getvalue()
    for before, after in header.items():
        text = text.replace(before.encode(), after.encode().ljust(len(before)))
    return text


COEFFICIENTS = settings_of(SCHEMA)["coef_"]["file"]
INTERCEPT = settings_of(SCHEMA)["intercept_"]["file"]
ARRAYS = {
    "claims": ({COEFFICIENTS: npy(np.zeros((3, 8)), **{"(3, 8), }  ": "(99, 8), } "})}, "damaged"),
    "huge": ({COEFFICIENTS: npy(np.zeros((3, 8)))[:-8]}, "damaged or incomplete"),
    "object": ({COEFFICIENTS: npy(np.zeros((3, 8)), **{"<f8": "|O8"})}, "not an array of|damaged"),
    "text": ({COEFFICIENTS: npy(np.full((3, 8), "a"))}, "is not the classifier"),
    "shape": ({COEFFICIENTS: npy(np.zeros((1, 1)))}, "is not the classifier"),
    "nan": ({COEFFICIENTS: npy(np.full((3, 8), np.nan))}, "NaN or infinity"),
    "column": ({INTERCEPT: npy(np.zeros((10_000, 1)))}, "an intercept of two axes"),
    "classes": ({COEFFICIENTS: npy(np.zeros((4, 8))), INTERCEPT: npy(np.zeros(4))},
                "a finite score for each of 3 classes"),
}  # fmt: skip


@pytest.mark.parametrize(("members", "text"), ARRAYS.values(), ids=ARRAYS)
def test_arrays_of_another_size_or_type(saved, members, text):
    (saved / "pipeline.skops").write_bytes(packed({**MEMBERS, **members}))
    with pytest.raises(DataError, match=text):
        load_linear_probe(saved)


def test_an_array_is_not_unfolded(saved):
    members = {**MEMBERS, COEFFICIENTS: npy(np.zeros((3, 8)))}
    (saved / "pipeline.skops").write_bytes(packed(members, zipfile.ZIP_DEFLATED))
    with pytest.raises(DataError, match="must not be compressed"):
        load_linear_probe(saved)


def test_an_array_that_is_named_often_counts_as_often(saved, monkeypatch):
    """skops reads it once for each object of another number."""

    def name_it_three_times(schema):
        for number, name in enumerate(("verbose", "tol", "C")):
            settings_of(schema)[name] = {**settings_of(schema)["coef_"], "__id__": number}

    schema = json.loads(json.dumps(SCHEMA))
    name_it_three_times(schema)
    members = {**MEMBERS, COEFFICIENTS: npy(np.zeros((3, 5000))), "schema.json": json.dumps(schema)}
    (saved / "pipeline.skops").write_bytes(packed(members))
    monkeypatch.setattr("cnnkit.transfer.pipeline_file.MAX_PIPELINE_BYTES", 300_000)
    with pytest.raises(DataError, match="at most 300,000 bytes of arrays"):
        load_linear_probe(saved)


@pytest.mark.parametrize("name", ["transfer.json", "pipeline.skops"])
def test_files_that_never_end_are_not_opened(saved, name):
    file = saved / name
    os.truncate(file, 10 << 30)
    with pytest.raises(DataError, match="is too large"):
        load_linear_probe(saved)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises((DataError, Exception), match="must be a regular file|No saved classifier"):
        load_linear_probe(saved)


def test_an_archive_that_skops_cannot_load(tmp_path, monkeypatch):
    skops.io.dump(make_pipeline(Normalizer()), tmp_path / "file.skops")

    def fail(file):
        raise ValueError("no type")

    monkeypatch.setattr(skops.io, "load", fail)
    with pytest.raises(DataError, match=r"file\.skops is not a saved pipeline.*no type"):
        load_pipeline(tmp_path / "file.skops")


def test_the_schema_has_a_limit(saved, monkeypatch):
    monkeypatch.setattr("cnnkit.transfer.pipeline_file.MAX_PIPELINE_SCHEMA_BYTES", 1000)
    with pytest.raises(DataError, match=r"schema.json in .* is too large. Expected: at most 1,000"):
        load_linear_probe(saved)
    assert limits.MAX_PIPELINE_SCHEMA_BYTES > 1_000_000


# A file that names no version of scikit-learn, or another one, is loaded with a warning.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.InconsistentVersionWarning")
@settings(max_examples=50)
@given(data=damaged(FILE.read_bytes()))
def test_any_file_is_loaded_or_refused(changed, data):
    (changed / "pipeline.skops").write_bytes(data)
    reads_or_refuses(lambda: load_linear_probe(changed).scores(VALUES))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.InconsistentVersionWarning")
@settings(max_examples=100)
@given(schema=changed_json(SCHEMA))
def test_any_schema_is_loaded_or_refused(changed, schema):
    (changed / "pipeline.skops").write_bytes(packed({**MEMBERS, "schema.json": schema}))
    reads_or_refuses(lambda: load_linear_probe(changed).scores(VALUES))


@settings(max_examples=100)
@given(data=st.one_of(changed_json(METADATA), damaged((SAVED / "transfer.json").read_bytes())))
def test_any_description_is_loaded_or_refused(changed, data):
    shutil.copytree(SAVED, changed, dirs_exist_ok=True)
    (changed / "transfer.json").write_bytes(data)
    reads_or_refuses(lambda: load_linear_probe(changed).scores(VALUES))
