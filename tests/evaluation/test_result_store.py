"""File names of results, which hash the request, and the files themselves."""

import hashlib
import json
from pathlib import Path

import pytest

from cnnkit.errors import RunError, UsageError
from cnnkit.evaluation.result_store import (
    newest_results,
    progress_path,
    read_results,
    result_path,
    save_results,
    sha256,
)

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
    with pytest.raises(RunError, match="holds no results of an evaluation"):
        read_results(tmp_path / "some.json")
