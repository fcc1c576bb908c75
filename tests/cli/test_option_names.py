"""Errors name the arguments of Python to Python, and the options of a command to its user."""

import argparse
import ast
import re
from pathlib import Path

import pytest

from cnnkit._untrusted.images import ENVIRONMENT_VARIABLE
from cnnkit.cli.console import print_error, print_note
from cnnkit.cli.main import all_command_names, build_parser, main
from cnnkit.cli.option_names import in_options, set_running
from cnnkit.cli.parser import Parser, add_common_arguments, leaf_parsers
from cnnkit.config import TrainingConfig
from cnnkit.errors import UsageError

PACKAGE = Path(__file__).resolve().parents[2] / "cnnkit"
# A command in full names its own options, also to a reader who runs none.
COMMAND = re.compile(r"`?cnnkit(-train)? [^`]*`?")
# Modules whose texts are flags and commands themselves.
OF_COMMANDS = ("config.py", "recipes/", "reports/settings.py", "training/environment.py")
OF_COMMANDS += ("server/tf_serving.py",)


@pytest.fixture
def parser():
    parser = Parser(prog="cnnkit test")
    add_common_arguments(parser)
    parser.add_argument("weights", metavar="WEIGHTS")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--labels")
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--flip", action=argparse.BooleanOptionalAction)
    parser.add_argument("--keep-epochs", nargs="*")
    parser.add_argument("--lr-multiplier", dest="lr_multipliers", action="append")
    parser.add_argument("--model-option", dest="model_options", action="append")
    parser.add_argument("--hidden", help=argparse.SUPPRESS)
    return parser


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`epochs` and `other` must be 1", "--epochs and `other` must be 1"),
        ("`weights` must be given", "`WEIGHTS` must be given"),
        ("take `epochs=5`", "take --epochs 5"),
        ("`overwrite=True` replaces it", "--overwrite replaces it"),
        ("`overwrite=False`", "`overwrite=False`"),
        ("`flip=True` or `flip=False`", "--flip or --no-flip"),
        ("`keep_epochs=[1, 8]`", "--keep-epochs 1 8"),
        ("`class_names` (file)", "--labels (file)"),
        ("`lr_multipliers['conv1/*']` must be 1", "--lr-multiplier conv1/* must be 1"),
        ("`model_options={'initializer': 'he', 'lrn': False}`",
         "--model-option initializer=he lrn=false"),
        ("`dropout` must be below 1", "--model-option dropout must be below 1"),
        ("`lrn=False`", "--model-option lrn=false"),
        ("`TrainingConfig.restore_best=True`", "--restore-best"),
        ("`TrainingConfig.task='localize'`", "--task localize"),
        (f"The environment variable `{ENVIRONMENT_VARIABLE}` allows more",
         "--max-image-pixels allows more"),
        ("`hidden` and `version` and `relu`", "`hidden` and `version` and `relu`"),
        ("`cnnkit train --resume`", "`cnnkit train --resume`"),
    ],
)  # fmt: skip
def test_arguments_of_python_become_options(parser, text, expected):
    assert in_options(text, parser) == expected


def test_a_command_that_runs_lends_its_options(parser, capsys):
    assert in_options("`epochs`") == "`epochs`"
    set_running(parser)
    try:
        print_note("lower `epochs`")
        print_error("Stopped: start again with `overwrite=True`")
    finally:
        set_running(None)
    assert capsys.readouterr().err == (
        "cnnkit: note: lower --epochs\nStopped: start again with --overwrite\n"
    )


def test_the_limit_of_pixels_is_named_as_it_was_given(monkeypatch, capsys):
    assert main(["data", "check", "digits", "--max-image-pixels", "x"]) == 2
    assert "error: --max-image-pixels must be a number of pixels" in capsys.readouterr().err
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "x")
    assert main(["data", "check", "digits"]) == 2
    assert f"variable `{ENVIRONMENT_VARIABLE}` must be" in capsys.readouterr().err


def texts(tree):
    """Yield the line and the text of each string but docstrings; values are `{}`."""
    left_out = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            left_out |= {id(part) for part in node.values}
            parts = [one.value if isinstance(one, ast.Constant) else "{}" for one in node.values]
            yield node.lineno, "".join(parts)
        elif isinstance(getattr(node, "value", None), str) and id(node) not in left_out:
            yield node.lineno, node.value


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith(("cli/", *OF_COMMANDS)) and not name.endswith("_pb2.py"):
            yield name, ast.parse(path.read_text())


@pytest.fixture(scope="module")
def arguments():
    leaves = leaf_parsers(build_parser(commands=all_command_names()))
    return [action for leaf in leaves for action in leaf._actions]


def test_the_package_names_no_options(arguments):
    flags = {flag for action in arguments for flag in action.option_strings}
    assert "--keep-best" in flags
    found = [
        f"{name}:{line} {text}"
        for name, tree in modules()
        for line, text in texts(tree)
        if flags & set(re.findall(r"--[a-z][a-z-]*(?!\w)", COMMAND.sub("", text)))
    ]
    assert found == []


def test_values_of_arguments_stand_in_backticks(arguments):
    """`overwrite=True` bare would be printed to the users of a command."""
    names = {action.dest for action in arguments if action.option_strings}
    found = [
        f"{name}:{line} {text}"
        for name, tree in modules()
        if not name.startswith("client/")
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(("Error", "warn"))
        for line, text in texts(call)
        if any(
            match[1] in names
            for match in re.finditer(
                r"(?<![\w-])([a-z_]+)=(?!=)", re.sub(r"`[^`]*`|\w+\([^)]*\)", "", text)
            )
        )
    ]
    assert found == []


def test_both_doors_name_their_own(tmp_path, capsys):
    with pytest.raises(UsageError, match="`learning_rate` must be"):
        TrainingConfig(learning_rate=-1)
    (tmp_path / "curves.png").write_bytes(b"")
    output = str(tmp_path / "curves.png")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(TrainingConfig().to_json())
    assert main(["plot", str(run), "--output", output]) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
