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
    assert rows["fc1"]["output"] == [None, 4096] or rows["fc1"]["output"] == [4096]
    assert main(["models", "compare-stacks", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0] == {
        "kernels": [3, 3, 3], "receptive_field": 7, "weights_per_channel_squared": 27,
        "activations": 3,
    }  # fmt: skip
    assert main(["models", "compare-stacks"]) == 0
    table = capsys.readouterr().out
    assert "27 C^2" in table and "3x3 + 3x3 + 3x3" in table
    assert main(["models", "vgg17"]) == 2
    assert "Did you mean vgg1" in capsys.readouterr().err
    assert main(["models", "alexnet", "--image-size", "0"]) == 2
