"""`cnnkit reproduce`: a result beside the paper's, and what it asks for."""

import dataclasses
import json
import re
from types import SimpleNamespace

import pytest

from cnnkit.cli.commands.reproduce import _print
from cnnkit.cli.main import main
from cnnkit.data import load
from cnnkit.papers import find_paper_result
from cnnkit.reproduction.procedures import PROCEDURES, Procedure, open_data


def test_a_result_stands_beside_the_papers(tmp_path, capsys):
    output = tmp_path / "papers"
    words = ["reproduce", "vgg.table2.d.parameters", "--output", str(output)]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "138 million" in text
    # Simonyan & Zisserman's D, as torchvision counts it.
    assert "138.357544 million" in text
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["value"], found["paper"], found["ran"]) == (138.357544, 138.0, 0)
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        "all seeds were in the file, and none ran", str(output / "vgg.table2.d.parameters.jsonl")
    ]  # fmt: skip
    records = (output / "vgg.table2.d.parameters.jsonl").read_text().splitlines()
    assert [json.loads(line)["record"] for line in records] == ["seed", "summary"]


def test_a_dataset_is_opened_once(tmp_path, capsys, monkeypatch):
    opened, open_dataset = [], load._open_dataset
    monkeypatch.setattr(
        load, "_open_dataset", lambda *args: opened.append(args[0]) or open_dataset(*args)
    )

    def measure(settings, inputs, seeds):
        for _ in seeds:
            yield float(len(open_data(inputs).class_names))

    monkeypatch.setitem(PROCEDURES, "transfer", Procedure(measure, needs=("data",), is_random=True))
    words = ["reproduce", "zfnet.table7.svm5.c101", "--data", "digits", "--seeds", "2", "--json"]
    assert main([*words, "--output", str(tmp_path / "papers")]) == 0
    assert json.loads(capsys.readouterr().out)["values"] == [10.0, 10.0]
    assert opened == ["digits"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["zfnet.table7.svm5.c101"], "--data must be given, because zfnet.table7.svm5.c101 needs"),
        (["zfnet.table7.svm5.c101", "--data", "digits"], "--weights must be given"),
        (["vgg.table2.d.parameters", "--data", "digits"], "--data must not be given"),
        (["vgg.table3.d.256.top1"], "`ID` must be a result that has a procedure"),
        (["vgg.table7.msra-1.top1"], "a result of another method"),
        (["alexnet.fig1.speedup"], "Its command is: cnnkit-train --recipe alexnet-fig1"),
        (["alexnet.fig9"], "`ID` must be a result of the papers"),
        (["vgg.table2.d.parameters", "--seeds", "0"], "--seeds must be"),
    ],
)
def test_what_is_missing_is_one_line(words, text, tmp_path, capsys):
    assert main(["reproduce", *words, "--output", str(tmp_path / "papers")]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert not (tmp_path / "papers").exists()


def test_the_ledger_and_the_differences_are_told(capsys):
    result = find_paper_result("alexnet.text.cifar10.with-lrn")
    found = SimpleNamespace(
        result=result, value=19.1, seeds=(0, 1), interval=(18.5, 19.7), ran=1, file="papers/x.jsonl"
    )
    _print(found)
    first, _, *lines, differs, file = capsys.readouterr().out.splitlines()
    assert first == f"{result.id}: {result.source}, {result.what}"
    rows = [re.split(r"  +", line) for line in lines]
    assert rows == [
        ["paper", "11.0 %"],
        ["ledger", "19.3 % (95 %: 18.5 to 20.1)", "0"],
        ["here", "19.1 % (95 %: 18.5 to 19.7)", "0, 1"],
    ]
    assert differs == f"differs from the paper, in the ledger: {result.ours.differs}"
    assert file == "papers/x.jsonl"
    noted = dataclasses.replace(result, ours=None, note="about half")
    _print(SimpleNamespace(**{**vars(found), "result": noted}))
    *_, note, _ = capsys.readouterr().out.splitlines()
    assert note == "the paper: about half"
