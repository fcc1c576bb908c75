"""`cnnkit runs`: the list of runs, and their comparison."""

import json

from cnnkit.cli.main import main
from tests.helpers.run_folders import write_metrics_run, write_two_runs


def test_runs_are_listed_and_compared(tmp_path, capsys):
    folder = tmp_path / "runs"
    one, other = write_two_runs(folder)
    assert main(["runs", "--folder", str(folder), "--json"]) == 0
    rows = {row["run"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows[str(one.path)] == {
        "run": str(one.path), "model": "alexnet", "dataset": "digits",
        "epochs": {"done": 3, "of": 5},
        "finished": True, "error": 0.375, "best_error": 0.25, "best_epoch": 2, "loss": 0.6667,
        "images_per_second": 50.0,
    }  # fmt: skip
    assert rows[str(other.path)]["finished"] is False
    assert main(["runs", "--folder", str(folder)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert " best error  best epoch " in table[0] and " 3/5 " in table[2] and " yes " in table[2]

    assert main(["runs", str(one.path), str(other.path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["run", str(one.path), str(other.path)]
    assert ["learning_rate", "0.01", "0.1"] in lines
    assert ["weight_decay_on_biases", "False", "True"] in lines
    assert "momentum" not in {line[0] for line in lines}
    assert main(["runs", "--folder", str(folder / "none")]) == 2
    assert "No runs in" in capsys.readouterr().err


def test_a_run_without_an_epoch(tmp_path, capsys):
    path = str(write_metrics_run(tmp_path / "run", []).path)
    assert main(["runs", path, "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert row == {
        "run": path, "model": "alexnet", "dataset": "digits", "epochs": {"done": 0, "of": 5},
        "finished": False, "error": None, "best_error": None, "best_epoch": None, "loss": None,
        "images_per_second": None,
    }  # fmt: skip
    assert main(["runs", path]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["finished", "no"] in lines and ["best", "error", "-"] in lines
