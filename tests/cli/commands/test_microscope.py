"""`cnnkit microscope`."""

import json

from cnnkit.cli.main import main
from tests.helpers.evaluation_networks import LABELS, write_folder, write_run


def test_the_command_writes_a_site_and_refuses_to_replace_it(tmp_path, capsys):
    dataset = write_folder(tmp_path / "seven", LABELS)
    run = write_run(tmp_path / "run", 3, dataset)
    site = tmp_path / "site"
    words = ["microscope", str(run), f"folder:{dataset}", "--output", str(site), "--sample", "8"]
    assert main([*words, "--layers", "conv1", "--units", "0", "2"]) == 0
    assert capsys.readouterr().out == f"{site / 'index.html'}\n"
    assert json.loads((site / "microscope.json").read_text())["images"] == 8
    pages = sorted(one.name for one in (site / "conv1").glob("*.html"))
    assert pages == ["index.html", "unit-0000.html", "unit-0002.html"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert f"--output must be a new folder, and {site} has a site" in error
    assert "--overwrite replaces it" in error
    assert main([*words, "--layers", "conv9", "--overwrite"]) == 2
    assert "conv9" in capsys.readouterr().err
    assert main([*words, "--layers", "conv1", "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["page"] == str(site / "index.html")
