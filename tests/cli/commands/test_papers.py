"""`cnnkit papers`: the list, one result, JSON and the page."""

import json
import subprocess
import sys

import pytest

from cnnkit.cli.main import main
from cnnkit.papers import paper_results


def test_the_list_is_grouped_by_table(capsys):
    assert main(["papers", "--paper", "zfnet", "--state", "smaller-scale"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Zeiler & Fergus 2013, Table 4"
    [row] = [line for line in lines if line.startswith("zfnet.table7.svm5.c101 ")]
    assert "86.2 ± 0.8 %" in row
    assert row.endswith("smaller-scale")
    assert lines[-1].startswith(f"{sum(one.startswith('zfnet.') for one in lines)} results: ")


def test_json_has_every_field(capsys):
    assert main(["papers", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document) == len(paper_results())
    [row] = [one for one in document if one["id"] == "vgg.table3.d.256.top1"]
    assert (row["value"], row["unit"], row["state"]) == (27.0, "%", "protocol-only")
    assert row["command"].endswith("cnnkit evaluate runs/vgg-d-256 --protocol dense --scales 256")


def test_one_result_in_full(capsys):
    assert main(["papers", "alexnet.text.cifar10.with-lrn"]) == 0
    text = capsys.readouterr().out
    for part in ("section 3.3", "11.0 %", "19.3 % (95 %: 18.5 to 20.1)", "differs", "cifar10-full"):
        assert part in text
    assert main(["papers", "vgg.table7.msra-1.top1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["value"], found["ours"]) == (27.9, None)
    assert "another method" in found["why"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["vgg.table3.d.256.top2"], "`ID` must be a result of the papers"),
        (["--paper", "resnet"], "--paper must be"),
        (["--state", "done"], "--state must be"),
        (["vgg.table3.d.256.top1", "--paper", "vgg"], "--paper must not be given with"),
        (["vgg.table3.d.256.top1", "--state", "repeated"], "--state must not be given with"),
        (["--markdown", "--json"], "--markdown prints the whole page"),
        (["--markdown", "--paper", "vgg"], "--markdown prints the whole page"),
        (["--markdown", "vgg.table3.d.256.top1"], "--markdown prints the whole page"),
    ],
)
def test_wrong_calls_are_one_line(words, text, capsys):
    assert main(["papers", *words]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_the_list_needs_no_tensorflow():
    code = (
        "import sys; from cnnkit.cli.main import main; main(['papers']);"
        "print([n for n in ('tensorflow', 'keras', 'sklearn') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
