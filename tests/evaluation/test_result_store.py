"""File names of results, which hash the request, and the files themselves."""

import hashlib
import json
import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings

from cnnkit._file_tree import newest_results
from cnnkit.errors import DataError, RunError, UsageError
from cnnkit.evaluation.result_store import (
    progress_path,
    read_results,
    result_path,
    save_results,
    sha256,
)
from tests.helpers.damage import changed_json, reads_or_refuses

STORED = Path(__file__).parents[1] / "data" / "saved_by_0_1_0" / "run.zip"
with zipfile.ZipFile(STORED) as archive:
    RESULTS = json.loads(archive.read("run/evaluations/center-9-06e29163.json"))

REQUEST = {
    "protocol": "dense",
    "scales": [[224, 256], [384]],
    "average": None,
    "dataset": "digits",
    "fingerprint": "abc",
    "networks": ["0" * 64, "1" * 64],
}


def document(error=0.25):
    return {
        "confusion": [[0, 0, 3], [0, 1, 1]],
        "classes": [],
        "members": [],
        "examples": [],
        "mistakes": [],
        "top1_error": error,
        "top5_error": 0.0,
    }


def test_the_name_of_a_file_is_that_of_0_1_0():
    """A change of the name would evaluate every stored network again."""
    path = result_path(Path("runs/a"), REQUEST)
    assert path == Path("runs/a/evaluations/dense-224_256+384-6998e729.json")
    assert result_path(Path("runs/a"), dict(reversed(REQUEST.items()))) == path
    assert progress_path(path).name == "dense-224_256+384-6998e729.partial.npz"


def test_the_digest_of_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"weights" * 1000)
    assert sha256(tmp_path / "file") == hashlib.sha256(b"weights" * 1000).hexdigest()


def test_other_counts_get_the_next_name(tmp_path):
    path = result_path(tmp_path, REQUEST)
    assert save_results(document(), path) == path
    assert save_results({**document(), "seconds": 3}, path) == path
    assert "seconds" not in read_results(path)
    second = save_results(document(0.5), path)
    assert second.stem == f"{path.stem}-2"
    assert newest_results(tmp_path) == second


def test_files_that_are_no_results(tmp_path):
    with pytest.raises(UsageError, match="has not been evaluated yet"):
        newest_results(tmp_path)
    with pytest.raises(UsageError, match="No results"):
        read_results(tmp_path / "none.json")
    (tmp_path / "some.json").write_text(json.dumps({"confusion": []}))
    with pytest.raises(RunError, match="some.json has no `classes`"):
        read_results(tmp_path / "some.json")
    (tmp_path / "some.json").write_text("{}")
    with pytest.raises(RunError, match=r"some\.json holds no results of an evaluation"):
        read_results(tmp_path / "some.json")


def test_counts_of_the_members_count(tmp_path):
    path = result_path(tmp_path, REQUEST)
    for number, error in ((1, 0.5), (2, 0.25), (1, 0.5)):
        member = {"name": "a", "top1_error": error, "top5_error": 0.0}
        saved = save_results({**document(), "members": [member]}, path)
        assert saved.stem == path.stem + (f"-{number}" if number > 1 else "")


EXAMPLE, BIN = RESULTS["examples"][0], RESULTS["calibration"]["bins"][0]


def with_bin(**change):
    return {"calibration": {"error": 0.1, "bins": [{**BIN, **change}]}}


def with_example(**change):
    return {"examples": [{**EXAMPLE, **change}]}


def test_the_limits_of_results(tmp_path):
    """What an evaluation may hold at the limits, and the values beside them."""
    file = tmp_path / "some.json"
    for change in (
        {"confusion": [[9, 9, 1]]}, {"top1_error": 0, "top5_error": 1}, {"calibration": None},
        {"classes": [], "confusion": [[10, 0, 1]]}, {"seed": 0, "images": 0}, with_bin(low=0),
        with_bin(high=1), with_bin(images=5, confidence=0, accuracy=1), with_example(name=""),
        with_example(probability=0), with_example(top=[["a", 1]]),
        # As version 0.1.0 wrote the error of a class without images.
        {"classes": [{**RESULTS["classes"][0], "top1_error": float("nan")}] * 10},
    ):  # fmt: skip
        stored = {name: value for name, value in {**RESULTS, **change}.items() if value is not None}
        file.write_text(json.dumps(stored))
        assert set(read_results(file)) == set(stored)
    for change in (
        {"confusion": [[10, 9, 1]]}, {"confusion": [[9, 10, 1]]}, {"top1_error": 1.01},
        {"top5_error": -0.01}, {"top5_error": None}, {"protocol": 5}, {"fingerprint": 5},
        {"members": [{"top1_error": 0.5}]}, {"calibration": {"error": 1.1, "bins": []}},
        {"calibration": {"error": 0.1}}, with_bin(images=None), with_bin(low=-0.1),
        with_bin(high=1.1), with_bin(images=5), with_bin(images=5, confidence=0.5),
        with_bin(images=5, confidence=2, accuracy=1),
        with_bin(images=5, confidence=1, accuracy=2),
        with_bin(confidence=-1), with_example(index="a"), with_example(label=5),
        with_example(name=5), with_example(probability=1.1), with_example(probability=None),
        with_example(top=[["a", 1.1]]), with_example(top=[[5, 0.5]]), with_example(top=[["a"]]),
        with_example(top=["ab"]), {"mistakes": [{**EXAMPLE, "label": 5}]},
    ):  # fmt: skip
        file.write_text(json.dumps({**RESULTS, **change}))
        with pytest.raises(RunError, match=r"some\.json"):
            read_results(file)


def test_results_that_a_figure_could_not_draw_are_refused(tmp_path):
    file = tmp_path / "some.json"
    for change in (
        {"confusion": [[10**18, 0, 1]]}, {"confusion": [[0, 0]]}, {"confusion": [["a", "b", 1]]},
        {"confusion": [[0, 99, 1]]}, {"classes": 5}, {"classes": [{}]}, {"members": None},
        {"top1_error": "x"}, {"images": "x"}, {"dataset": 5}, {"seed": 1.5}, {"mistakes": {}},
        {"examples": [{**RESULTS["examples"][0], "top": []}]},
        {"examples": [7]}, {"calibration": {"error": 0.1, "bins": [5]}}, {"calibration": 5},
    ):  # fmt: skip
        file.write_text(json.dumps({**RESULTS, **change}))
        with pytest.raises(RunError, match=r"some\.json"):
            read_results(file)
        # A new evaluation beside it is an error too, not a second opinion.
        with pytest.raises(RunError, match=r"some\.json"):
            save_results(document(), file)


def test_files_that_never_end_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "some.json")
    with pytest.raises(UsageError, match="No results"):
        read_results(tmp_path / "some.json")
    with pytest.raises(DataError, match="must be a regular file"):
        sha256(tmp_path / "some.json")


@settings(max_examples=100)
@given(data=changed_json(RESULTS))
def test_any_results_are_read_or_refused(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "any.json"
    file.write_bytes(data)
    reads_or_refuses(lambda: read_results(file))
