"""The results of a run: the newest that fit, or a new evaluation."""

import json
import os

import pytest

from cnnkit.cli.main import main
from cnnkit.errors import DataError
from cnnkit.evaluation.ensemble import held_out_images
from cnnkit.evaluation.run_results import evaluate_run, find_results
from cnnkit.run_folder import RunFolder
from tests.helpers.evaluation_networks import LABELS, network, write_folder, write_run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("pictures") / "seven", LABELS)


@pytest.fixture
def run(dataset, tmp_path):
    return RunFolder(write_run(tmp_path / "run", 3, dataset))


def test_a_run_is_evaluated_as_the_command_does(run, capsys):
    source, seed = held_out_images([run], None)
    assert find_results(run, source) is None
    counted = []
    file, results = evaluate_run(run, source, seed, progress=counted.append)
    assert sum(counted) == results["images"] == 21
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
    assert find_results(run, source)[0] == newer
    # Another network has no results yet.
    network(5).save(run.model_file)
    assert find_results(run, source) is None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"classes": []}, "must have the classes of the run"),
        ({"mistakes": [{"index": 99}]}, "must name images of the test split"),
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
