"""Errors of the parser, defaults from the environment, and options of all commands."""

import argparse

import pytest

from cnnkit.cli.main import all_command_names, build_parser, main
from cnnkit.cli.parser import (
    Parser,
    leaf_parsers,
    options_of,
    require_packages,
    take_anywhere,
    unknown_word,
    use_environment,
    variable_of,
)
from cnnkit.cli.values import Number, Whole
from cnnkit.errors import UsageError


@pytest.fixture
def parser():
    parser = Parser(prog="cnnkit test")
    parser.add_argument("place", metavar="PLACE")
    parser.add_argument("--epochs", type=Whole(minimum=1), default=1)
    parser.add_argument("--kind", choices=("big", "small"))
    parser.add_argument("--layers", nargs="+", default=[])
    parser.add_argument("--model-option", action="append", default=[])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--flip", action=argparse.BooleanOptionalAction)
    parser.add_argument("--rate", type=Number())
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--here", action="store_true")
    group.add_argument("--there", action="store_true")
    return parser


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("", "`PLACE` must be given. `cnnkit test --help` explains the arguments."),
        ("x --epochs abc", "--epochs must be a whole number of at least 1, received abc."),
        ("x --rate inf", "--rate must be a finite number, received inf."),
        ("x --kind bigg", "--kind must be one of big, small, received bigg. Did you mean big?"),
        ("x --epochs", "--epochs needs a value."),
        ("x --layers", "--layers needs a value."),
        ("x --here --there", "--there must not be given with --here."),
        ("x --json=1", "--json takes no value, received '1'."),
        ("x y", "`cnnkit test` has no argument for 'y'. `cnnkit test --help` lists the options."),
        ("x --epohs 3", "`cnnkit test` has no option --epohs. Did you mean --epochs?"),
    ],
)
def test_errors_are_sentences_about_the_argument(parser, words, error):
    with pytest.raises(UsageError) as told:
        parser.parse_args(words.split())
    assert str(told.value).startswith(error)


def test_an_ambiguous_beginning_names_the_options(parser):
    with pytest.raises(UsageError, match="--[a-z]* must be one of --here, --help|--h"):
        parser.parse_args(["x", "--he"])


def test_other_errors_of_argparse_stay_as_they_are(parser):
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--one")
    group.add_argument("--two")
    with pytest.raises(UsageError, match=r"one of the arguments --one --two is required\. `"):
        parser.parse_args(["x"])


def test_a_path_that_the_system_refuses_is_an_error_of_its_argument(parser):
    def refuse(text):
        raise OSError(36, "File name too long")

    parser.add_argument("--file", type=refuse)
    with pytest.raises(UsageError, match=r"^--file must be a path, received xx: File name too lo"):
        parser.parse_args(["x", "--file", "xx"])


def test_unknown_words_name_the_nearest_option(parser):
    assert "Did you mean --layers" in str(unknown_word(parser, "--layer=conv5"))
    assert "Did you mean" not in str(unknown_word(parser, "--zzzz"))


def test_defaults_come_from_the_environment(parser):
    use_environment(
        parser,
        {
            "CNNKIT_TEST_EPOCHS": "7",
            "CNNKIT_TEST_LAYERS": "conv1 'conv 2'",
            "CNNKIT_TEST_MODEL_OPTION": "a=1",
            "CNNKIT_TEST_JSON": "yes",
            "CNNKIT_TEST_FLIP": "0",
            "CNNKIT_TEST_KIND": "",
            "CNNKIT_OTHER": "x",
        },
    )
    found = parser.parse_args(["x", "--model-option", "b=2"])
    assert (found.epochs, found.layers, found.kind) == (7, ["conv1", "conv 2"], None)
    assert (found.model_option, found.json, found.flip) == (["a=1", "b=2"], True, False)
    assert parser.parse_args(["x", "--epochs", "3", "--flip"]).epochs == 3
    assert parser.parse_args(["x", "--flip"]).flip is True


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("EPOCHS", "0", "must be a whole number of at least 1, received 0"),
        ("KIND", "huge", "must be one of big, small, received huge"),
        ("JSON", "maybe", "must be 1 or 0. Received: maybe"),
        ("LAYERS", "'conv1", "No closing quotation"),
        ("RATE", "nan", "must be a finite number"),
    ],
)
def test_a_wrong_variable_is_named(parser, name, value, error):
    with pytest.raises(UsageError) as told:
        use_environment(parser, {f"CNNKIT_TEST_{name}": value})
    assert str(told.value).startswith(f"The variable CNNKIT_TEST_{name} {error}")


def test_a_variable_makes_a_required_option_optional(monkeypatch, capsys):
    monkeypatch.setenv("CNNKIT_QUERY_MODEL", "digits")
    assert main(["query", "none.png"]) == 2
    assert "`PATH` must be an existing image file or folder" in capsys.readouterr().err
    monkeypatch.delenv("CNNKIT_QUERY_MODEL")
    assert main(["query", "none.png"]) == 2
    assert "--model must be given" in capsys.readouterr().err


def test_a_mistyped_variable_is_noted(monkeypatch, capsys):
    monkeypatch.setenv("CNNKIT_RECIPES_JSN", "1")
    assert main(["recipes", "demo"]) == 0
    assert capsys.readouterr().err == (
        "cnnkit: note: the variable CNNKIT_RECIPES_JSN names no option of `cnnkit recipes`:"
        " did you mean CNNKIT_RECIPES_JSON?\n"
    )
    assert main(["recipes", "demo", "-q"]) == 0
    assert capsys.readouterr().err == ""


def test_a_worker_of_the_server_takes_no_defaults(monkeypatch, capsys):
    """Its parent gives it all options; with CNNKIT_SERVE_WORKERS each would start workers."""
    monkeypatch.setenv("CNNKIT_SERVE_WORKERS", "none")
    assert main(["serve", "no-such-folder"]) == 2
    assert "CNNKIT_SERVE_WORKERS must be a whole number" in capsys.readouterr().err
    assert main(["serve", "no-such-folder", "--worker"]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_every_option_has_a_variable_of_its_own():
    for leaf in leaf_parsers(build_parser(commands=all_command_names())):
        options = [one for one in options_of(leaf) if one.option_strings]
        names = {variable_of(leaf, one) for one in options}
        assert len(names) == len(options), leaf.prog
        assert all(name.replace("_", "").isalnum() and name.isupper() for name in names)


def test_two_options_stand_anywhere():
    words = ["--debug", "visualize", "--max-image-pixels", "5", "gradcam"]
    assert take_anywhere(words) == (True, "5")
    assert words == ["visualize", "gradcam"]
    words = ["query", "--max-image-pixels=7"]
    assert take_anywhere(words) == (False, "7") and words == ["query"]


def test_a_missing_package_is_named_with_what_needs_it():
    require_packages("numpy", purpose="--figure")
    with pytest.raises(UsageError, match=r"^--figure needs .* no_such_package.* Install it: pip"):
        require_packages("no_such_package", purpose="--figure")
