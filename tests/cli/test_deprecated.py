"""Options under their old names."""

import argparse

import pytest

from cnnkit.cli.deprecated import deprecated_option


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("--version-label", default="newest")
    deprecated_option(parser, "--label", "--version-label")
    parser.add_argument("--size", type=int, action="append", default=[])
    deprecated_option(parser, "--side", "--size", type=int, action="append")
    parser.add_argument("--mirror", action=argparse.BooleanOptionalAction)
    deprecated_option(parser, "--flip", "--mirror", action=argparse.BooleanOptionalAction)
    parser.add_argument("--quiet", action="store_true")
    deprecated_option(parser, "--silent", "--quiet", action="store_true")
    return parser


def test_old_names_store_to_the_new_destination(parser):
    args = parser.parse_args(
        ["--label", "stable", "--side", "3", "--size", "4", "--silent", "--no-flip"]
    )
    assert vars(args) == {
        "version_label": "stable",
        "size": [3, 4],
        "mirror": False,
        "quiet": True,
    }


def test_the_note_is_printed_once(parser, capsys):
    parser.parse_args(["--side", "3", "--side", "4", "--no-flip"])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "cnnkit: note: --side is now --size; --side works until 0.3.0\n"
        "cnnkit: note: --no-flip is now --no-mirror; --no-flip works until 0.3.0\n"
    )


def test_new_names_and_defaults_are_left_alone(parser, capsys):
    assert parser.parse_args([]).version_label == "newest"
    assert parser.parse_args(["--version-label", "stable"]).version_label == "stable"
    assert capsys.readouterr().err == ""


def test_old_names_are_not_in_the_help(parser):
    text = parser.format_help()
    assert "--version-label" in text
    assert "--label" not in text
    assert "--flip" not in text


def test_old_and_new_names_exclude_each_other_in_a_group(capsys):
    parser = argparse.ArgumentParser()
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--version-label")
    group.add_argument("--model-version", type=int)
    deprecated_option(group, "--label", "--version-label")
    with pytest.raises(SystemExit):
        parser.parse_args(["--label", "stable", "--model-version", "3"])
    assert "not allowed with argument" in capsys.readouterr().err


def test_group_defaults_of_suppressed_options_stay_away():
    parser = argparse.ArgumentParser()
    parser.add_argument("--colour", default=argparse.SUPPRESS)
    deprecated_option(parser, "--colors", "--colour")
    assert vars(parser.parse_args([])) == {}
    assert parser.parse_args(["--colors", "2"]).colour == "2"
