"""`cnnkit runs`: the list of runs, and their comparison."""

import json

from cnnkit.cli.main import main
from cnnkit.config import TrainingConfig
from cnnkit.run_folder import RunFolder


def write_run(folder, errors, **fields):
    config = TrainingConfig(epochs=5, **fields)
    run = RunFolder(folder)
    run.create(config, ["a", "b"], {})
    lines = [
        {"epoch": i, "loss": 2.0 / i, "accuracy": 1 - error / 2, "val_loss": 3.0 / i,
         "val_accuracy": 1 - error, "learning_rate": 0.1 if i < 3 else 0.01,
         "images_per_second": 50.0}
        for i, error in enumerate(errors, start=1)
    ]  # fmt: skip
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def write_two_runs(folder):
    """Write one finished run and one in a subfolder; return both."""
    one = write_run(folder / "one", [0.5, 0.25, 0.375])
    other = write_run(
        folder / "deep/two", [0.75, 0.5], learning_rate=0.1, weight_decay_on_biases=True
    )
    one.model_file.write_bytes(b"")
    return one, other


def test_runs_are_listed_and_compared(tmp_path, capsys):
    folder = tmp_path / "runs"
    one, other = write_two_runs(folder)
    assert main(["runs", "--folder", str(folder), "--json"]) == 0
    rows = {row["run"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows[str(one.path)] == {
        "run": str(one.path), "model": "alexnet", "dataset": "digits", "epochs": "3/5",
        "finished": "yes", "error": 0.375, "best error": 0.25, "best epoch": 2, "loss": 0.6667,
        "images/s": 50.0,
    }  # fmt: skip
    assert rows[str(other.path)]["finished"] == "no"

    assert main(["runs", str(one.path), str(other.path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["run", str(one.path), str(other.path)]
    assert ["learning_rate", "0.01", "0.1"] in lines
    assert ["weight_decay_on_biases", "False", "True"] in lines
    assert "momentum" not in {line[0] for line in lines}
    assert main(["runs", "--folder", str(folder / "none")]) == 2
    assert "No runs in" in capsys.readouterr().err
