"""`cnnkit report`."""

import json

import pytest

from cnnkit.cli.main import main
from tests.helpers.evaluation_networks import LABELS, write_folder, write_run
from tests.helpers.run_folders import write_metrics_run

pytestmark = pytest.mark.usefixtures("unoptimized")


def test_the_command_writes_a_page_and_refuses_to_replace_it(tmp_path, capsys):
    run = write_run(tmp_path / "run", 3, write_folder(tmp_path / "seven", LABELS))
    output = tmp_path / "report"
    words = ["report", str(run), "--output", str(output)]
    assert main(words) == 0
    assert capsys.readouterr().out == f"{output / 'index.html'}\n"
    assert main(words) == 2
    error = capsys.readouterr().err
    assert f"--output must be a new file, and {output / 'index.html'} exists" in error
    assert "--overwrite replaces it" in error
    assert "Grad-CAM (Selvaraju et al. 2017) colors" in (output / "index.html").read_text()
    assert main([*words, "--overwrite", "--json", "--explain", "gradient"]) == 0
    assert json.loads(capsys.readouterr().out)["page"] == str(output / "index.html")
    page = (output / "index.html").read_text()
    assert "The gradient (Simonyan et al. 2014) shows the pixels that speak for a class" in page
    assert ": gradient of " in page
    assert f"cnnkit report {run} --explain gradient</code>" in page


def test_what_is_no_run_is_told_in_one_line(tmp_path, capsys):
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "No run folder" in capsys.readouterr().err
    run = str(write_metrics_run(tmp_path / "run", [0.5]).path)
    assert main(["report", run, "--output", "/proc/none"]) == 2
    assert "--output must be in a folder that can be written" in capsys.readouterr().err
    assert main(["report", run]) == 1
    assert "has no model yet" in capsys.readouterr().err
