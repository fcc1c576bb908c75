"""`cnnkit models`."""

import json

from cnnkit.cli.main import main
from cnnkit.models import BUILDERS, PAPERS


def test_models_command(capsys):
    assert set(PAPERS) == set(BUILDERS)
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(BUILDERS)
    [zfnet_line] = [line for line in lines if line.startswith("zfnet")]
    assert "62,357,608" in zfnet_line
    assert zfnet_line.split()[-2:] == ["64", "139"]
    assert main(["models", "vgg16", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["fc1"]["parameters"] == 102_764_544
    assert main(["models", "compare-stacks"]) == 0
    assert "27 C^2" in capsys.readouterr().out
    assert main(["models", "vgg17"]) == 2
    assert "Did you mean vgg1" in capsys.readouterr().err
    assert main(["models", "alexnet", "--image-size", "0"]) == 2
