"""The results of a run: the newest that fit, or a new evaluation."""

import json
import os
import sys

import pytest

from cnnkit.cli.main import main
from cnnkit.errors import DataError
from cnnkit.evaluation.ensemble import held_out_images
from cnnkit.evaluation.predictions import Predictions
from cnnkit.evaluation.result_store import progress_path, result_path, sha256
from cnnkit.evaluation.run_results import evaluate_run, find_results
from cnnkit.run_folder import RunFolder
from tests.helpers.evaluation_networks import LABELS, network, write_folder, write_run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("pictures") / "seven", LABELS)


@pytest.fixture
def run(dataset, tmp_path):
    return RunFolder(write_run(tmp_path / "run", 3, dataset))


def test_a_run_is_evaluated_as_the_command_does(run, capsys, monkeypatch):
    source, seed = held_out_images([run], None)
    assert find_results(run, source) is None
    counted = []
    request = {"protocol": "center", "scales": [[16]], "average": None, "dataset": source.spec,
               "fingerprint": source.fingerprint, "networks": [sha256(run.model_file)]}  # fmt: skip
    state = progress_path(result_path(run.path, request))
    state.parent.mkdir()
    state.write_bytes(b"torn")
    with monkeypatch.context() as patched:
        # The module, which has the name of its function in the package.
        patched.setattr(sys.modules["cnnkit.evaluation.evaluate"], "SECONDS_BETWEEN_SAVES", 0.0)
        saved = []
        patched.setattr(Predictions, "save", lambda self, path: saved.append(path))
        file, results = evaluate_run(run, source, seed, progress=counted.append)
    assert set(saved) == {state}
    # A state is of no use once there are results.
    assert not state.exists()
    assert sum(counted) == results["images"] == 21
    assert (results["run"], results["runs"], results["seed"], results["paper"]) == (
        str(run.path), [str(run.path)], 3, None,
    )  # fmt: skip
    assert {name: results[name] for name in request} == request
    assert find_results(run, source) == (file, results)
    before = file.read_bytes()
    assert main(["evaluate", str(run.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == str(file)
    assert file.read_bytes() == before


def test_the_newest_results_of_this_network_on_this_dataset_are_found(run):
    source, seed = held_out_images([run], None)
    first, results = evaluate_run(run, source, seed)

    def write(name, seconds, **changes):
        file = first.with_name(name)
        file.write_text(json.dumps({**results, **changes}))
        os.utime(file, (seconds, seconds))
        return file

    later = first.stat().st_mtime + 100
    newer = write("newer.json", later, protocol="dense")
    write("other.json", later + 1, fingerprint="other")
    write("ensemble.json", later + 2, networks=[*results["networks"], "other"])
    for i, calibration in enumerate(({"error": 0, "bins": []}, None)):
        old = write(f"old{i}.json", later + 3 + i)
        stored = {**results, "calibration": calibration}
        old.write_text(json.dumps({k: v for k, v in stored.items() if v is not None}))
        os.utime(old, (later + 3 + i, later + 3 + i))
    assert find_results(run, source)[0] == newer
    # Another network has no results yet.
    network(5).save(run.model_file)
    assert find_results(run, source) is None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"classes": []}, "must have the classes of the run"),
        ({"mistakes": [{"index": 21}]}, "must name images of the test split"),
        ({"examples": [{"index": 21}]}, "must name images of the test split"),
        ({"examples": [{"top": [["x", 0.5]]}]}, "must name images of the test split"),
        ({"mistakes": [{"label": "x"}]}, "must name images of the test split"),
    ],
)
def test_results_that_do_not_fit_the_run_are_refused(run, change, text):
    source, seed = held_out_images([run], None)
    file, results = evaluate_run(run, source, seed)
    for name, rows in change.items():
        changed = [{**results[name][0], **row} for row in rows]
        file.write_text(json.dumps({**results, "confusion": [], name: changed}))
    with pytest.raises(DataError, match=text):
        find_results(run, source)


def test_the_last_image_of_the_split_is_one_of_it(run):
    source, seed = held_out_images([run], None)
    file, results = evaluate_run(run, source, seed)
    last = {**results["examples"][0], "index": 20}
    file.write_text(json.dumps({**results, "examples": [last]}))
    assert find_results(run, source)[1]["examples"] == [last]
