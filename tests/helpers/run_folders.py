"""Run folders as training leaves them, without training."""

import json

from cnnkit.config import TrainingConfig
from cnnkit.run_folder import RunFolder


def write_metrics_run(folder, errors, **fields):
    """Writes a run with a line of metrics for each validation error; returns it."""
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
    one = write_metrics_run(folder / "one", [0.5, 0.25, 0.375])
    other = write_metrics_run(
        folder / "deep/two", [0.75, 0.5], learning_rate=0.1, weight_decay_on_biases=True
    )
    one.model_file.write_bytes(b"")
    return one, other
