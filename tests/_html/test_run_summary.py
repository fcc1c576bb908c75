"""Runs in notebooks."""

from cnnkit.run_folder import RunFolder
from tests._html.test_elements import read
from tests.helpers.run_folders import write_metrics_run


def test_a_run_shows_its_progress_errors_and_configuration(tmp_path):
    run = write_metrics_run(tmp_path / "<b>run", [0.5, 0.25, 0.375], dataset="folder:<i>photos")
    found = read(run._repr_html_())
    text = "|".join(found.texts)
    assert f"Run {run.path}|: alexnet on folder:<i>photos" in text
    assert (
        "epochs|3 of 5, not finished|error after the last epoch, held out|37.50%|best error" in text
    )
    assert "|best error|25.00% after epoch 2|images per second|50" in text
    assert "Error by epoch, from 0 to 50.0%" in text
    assert "learning_rate" in text
    assert found.tags.count("path") == 2
    assert not {"b", "i"} & set(found.tags[1:-1]) - {"b"}
    run.model_file.touch()
    assert "3 of 5, finished" in run._repr_html_()


def test_a_run_without_epochs_or_of_damaged_files_is_told(tmp_path):
    run = write_metrics_run(tmp_path / "run", [])
    assert "0 of 5" in run._repr_html_()
    assert "<svg" not in run._repr_html_()
    run.metrics_file.write_text("{}\n{}\n")
    assert "line 1 of" in run._repr_html_()
    assert "no run yet" in RunFolder(tmp_path / "none")._repr_html_()
