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
