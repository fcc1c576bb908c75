"""The ledger: its figures agree between the papers and with docs/results.md, and it is checked."""

import copy
import json
import re
import shlex
from pathlib import Path

import pytest

from cnnkit import papers
from cnnkit.cli.arguments import apply_overrides
from cnnkit.cli.main import build_parser
from cnnkit.cli.network_words import check_training_words
from cnnkit.errors import DataError, UsageError
from cnnkit.papers import OwnResult, PaperResult, find_paper_result, paper_results
from cnnkit.papers.ledger import paper_errors, parse_ledger
from cnnkit.recipes import find_recipe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def document():
    """A small ledger with one result in each state."""
    common = {"paper": "vgg", "place": "Table 3", "what": "top-1 error", "value": 27.0, "unit": "%"}
    ours = {"value": 30.0, "command": "cnnkit train", "seeds": [0]}
    return {
        "reasons": {"imagenet": "needs ImageNet", "server": "needs a server"},
        "results": [
            {"id": "vgg.a", **common, "state": "repeated", "ours": ours},
            {
                "id": "vgg.b", **common, "state": "smaller-scale",
                "ours": {**ours, "differs": "10 classes", "interval": [29, 31],
                         "interval_over": "seeds"},
            },
            {"id": "vgg.c", **common, "state": "protocol-only", "why": "imagenet",
             "test": {"name": "dense", "column": "top1_error"}},
            {"id": "vgg.d", **common, "state": "not-possible", "why": "server"},
        ],
    }  # fmt: skip


def parse(document):
    return parse_ledger(json.dumps(document).encode(), "results.json")


def test_a_ledger_is_read(document):
    found = parse(document)
    assert [one.state for one in found] == list(papers.STATES)
    assert found[1].ours == OwnResult(
        30.0, "cnnkit train", (0,), (29.0, 31.0), "seeds", "10 classes"
    )
    assert (found[2].why, found[2].test) == ("needs ImageNet", ("dense", "top1_error"))
    assert isinstance(found[0], PaperResult)
    assert found[0].source == "Simonyan & Zisserman 2014, Table 3"


@pytest.mark.parametrize(
    ("number", "changes", "text"),
    [
        (0, {"state": "done"}, r"results\[0\].state` .* must be one of repeated"),
        (0, {"ours": None}, "ours"),
        (1, {"why": "imagenet"}, "why` .* must be absent for a result that was measured"),
        (2, {"why": None}, "why` .* must be the name of a reason"),
        (2, {"why": "weather"}, "why` .* must be one of imagenet, server"),
        (2, {"ours": {"value": 1, "command": "x"}}, "absent for a result that is protocol-only"),
        (1, {"id": "vgg.a"}, "`id` in results.json must be given once. Received: vgg.a"),
        (1, {"id": "zfnet.a"}, "begin with vgg"),
        (0, {"value": 100.1}, "value` .* at most 100"),
        (0, {"value": -1}, "value` .* at least 0"),
        (0, {"unit": "parsecs"}, "unit` .* must be one of"),
        (0, {"paper": "resnet"}, "paper` .* must be one of alexnet, vgg, zfnet"),
        (0, {"ours": {"value": 101, "command": "x"}}, "value` .* at most 100"),
        (0, {"ours": {"value": 1, "command": "x", "differs": "all"}}, "differs"),
        (1, {"ours": {"value": 1, "command": "x"}}, "differs"),
        (0, {"ours": {"value": 1, "command": "x", "interval": [2, 3],
                      "interval_over": "seeds"}}, "around the value 1"),
        (0, {"ours": {"value": 1, "command": "x", "interval": [0, 3]}}, "interval_over"),
        (0, {"ours": {"value": 1, "command": "x", "speed": 3}}, "known fields. Received: speed"),
        (0, {"colour": "red"}, "must have known fields. Received: colour"),
        (2, {"test": {"name": "dense", "column": "speed"}}, "column` .* must be one of"),
        (3, {"test": {"name": "dense", "column": "top1_error"}}, "`test` .* must be given once"),
        (3, {"why": "imagenet"}, "`reasons` in results.json must be used. Received: server"),
        (0, {"place": None}, "place"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_ledger_is_found(document, number, changes, text):
    changed = copy.deepcopy(document)
    row = changed["results"][number]
    for name, value in changes.items():
        row[name] = value
        if value is None:
            del row[name]
    with pytest.raises(DataError, match=text):
        parse(changed)


def test_the_results_are_many_and_in_every_state():
    results = paper_results()
    assert len(results) > 300
    assert {one.state for one in results} == set(papers.STATES)
    assert {one.paper for one in results} == set(papers.PAPERS)


def test_a_result_is_found_by_its_name():
    assert find_paper_result("zfnet.table3.fig3.both.train-top1").value == 10.0
    with pytest.raises(UsageError, match="Did you mean .*vgg.table3.d.256.top1"):
        find_paper_result("vgg.table3.d.255.top1")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # A paper that quotes another one, or itself.
        ("zfnet.table2.krizhevsky-1", "alexnet.table2.1cnn"),
        ("zfnet.table2.krizhevsky-5", "alexnet.table2.5cnn"),
        ("zfnet.table2.krizhevsky-1-22k", "alexnet.table2.1cnn-22k"),
        ("zfnet.table2.krizhevsky-7-22k", "alexnet.table2.7cnn"),
        ("vgg.table7.krizhevsky-1", "alexnet.table2.1cnn"),
        ("vgg.table7.krizhevsky-5", "alexnet.table2.5cnn"),
        ("vgg.table7.zf-1", "zfnet.table2.b"),
        ("vgg.table7.zf-6", "zfnet.table2.a-b"),
        ("vgg.table7.one", "vgg.table5.e.both"),
        ("vgg.table7.two", "vgg.table6.two.both"),
        ("vgg.table7.submission", "vgg.table6.seven"),
        ("vgg.table5.d.dense", "vgg.table4.d.jitter"),
        ("vgg.table5.e.dense", "vgg.table4.e.jitter"),
        ("zfnet.table3.replication", "zfnet.table2.replication"),
        ("zfnet.table3.fig3", "zfnet.table2.fig3"),
        ("zfnet.table3.fig3.512", "zfnet.table2.b"),
    ],
)
def test_papers_that_quote_a_result_agree(one, other):
    assert paper_errors(one) is not None
    assert paper_errors(one) == paper_errors(other)
    tests = {id: value for id, value in values().items() if id.endswith("test-top5")}
    pair = [tests.get(f"{name}.test-top5") for name in (one, other)]
    assert None in pair or pair[0] == pair[1]


def values():
    return {result.id: result.value for result in paper_results()}


def test_single_results_are_quoted_alike():
    found = values()
    for one, other in (
        ("vgg.table11.zf.c101", "zfnet.table4.pre-trained.30"),
        ("vgg.table11.zf.c256", "zfnet.table5.pre-trained.60"),
        ("vgg.table11.zf.voc12", "zfnet.table6.mean"),
        ("vgg.table10.vgg.test", "vgg.table9.fusion.test"),
        ("vgg.table10.vgg.val", "vgg.table9.fusion.val"),
        ("zfnet.table2.gunji.test-top5", "alexnet.table2.sift-fv.test-top5"),
    ):
        assert found[one] == found[other], one


def test_means_are_those_of_their_classes():
    # Zeiler & Fergus 2013, Table 6 prints the mean beside the classes.
    found = {
        id: value
        for id, value in values().items()
        if id.startswith("zfnet.table6.") and ".mean" not in id
    }
    assert len(found) == 20
    assert round(sum(found.values()) / 20, 1) == values()["zfnet.table6.mean"]


def test_what_was_measured_stands_in_the_results_with_its_command():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    text = re.sub(r"\s*\\?\n\s*", " ", text)
    for result in paper_results():
        ours = result.ours
        if ours is None or ours.command.startswith("cnnkit reproduce"):
            continue
        errors = (f"{ours.value:g} ", f"{100 - ours.value:.1f} ")
        assert any(error in text for error in errors), result.id
        command = ours.command.partition(", then ")[0].partition(" --output")[0]
        # Some commands stand there as "the same without OPTION".
        assert command in text or command.replace(" --dataset", " --init-from", 1)[:40] in text, (
            result.id
        )


def test_the_trainings_of_the_ledger_can_be_typed():
    commands = {
        command
        for result in paper_results()
        for text in (result.command, result.ours.command if result.ours else "")
        for command in text.split(", then ")
        if command.startswith(("cnnkit train ", "cnnkit-train ")) and "--recipe" in command
    }
    assert len(commands) > 40
    for command in commands:
        # The weights of an earlier training and the images are not here.
        command = re.sub(r" --(init-from|dataset) \S+| for .*", "", command)
        words = shlex.split(command.replace("cnnkit-train", "cnnkit train"))[1:]
        words = [{"N": "1"}.get(word, word.replace("=FILTERS", "=256")) for word in words]
        args = build_parser(commands=["train"]).parse_args(words)
        recipe = find_recipe(args.recipe)
        for config in [stage.config for stage in recipe.stages] or [recipe.config]:
            check_training_words(apply_overrides(config, args))
