"""Errors: one line of problem, expectation, value and advice; suggestions for unknown names."""

import pytest

from cnnkit.errors import (
    MAX_PART,
    CnnkitError,
    DataError,
    RunError,
    UsageError,
    escape_controls,
    near_names,
    truncate,
    unknown_name,
    warn,
)


def test_the_text_is_one_line_of_sentences():
    error = CnnkitError(
        "`epochs` must be\n  at least 1", expected="1 or more", received=0, hint="Why 0?"
    )
    assert str(error) == "`epochs` must be at least 1. Expected: 1 or more. Received: 0. Why 0?"
    assert (error.problem, error.expected, error.received) == (
        "`epochs` must be\n  at least 1", "1 or more", 0
    )  # fmt: skip
    assert str(CnnkitError("`mean` is missing")) == "`mean` is missing."
    assert str(CnnkitError("`rate` is wrong", received=0)) == "`rate` is wrong. Received: 0."


def test_exit_codes_tell_wrong_usage_from_failure():
    assert [kind.exit_code for kind in (CnnkitError, DataError, RunError, UsageError)] == [
        1,
        1,
        1,
        2,
    ]
    assert issubclass(UsageError, ValueError)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("convv5", "Unknown layer 'convv5'. Expected: one of conv5, fc6. Did you mean conv5?"),
        ("zzz", "Unknown layer 'zzz'. Expected: one of conv5, fc6."),
    ],
)
def test_unknown_names_suggest_the_nearest(name, text):
    assert str(unknown_name("layer", name, ["conv5", "fc6"])) == text


def test_unknown_names_without_alternatives():
    error = unknown_name("layer", "a", [], hint="Build the model first")
    assert str(error) == "Unknown layer 'a'. Build the model first."


def test_control_characters_are_shown_as_text():
    error = UsageError("Unknown layer conv\x1b[2J", received="caf\udce9\nx")
    assert str(error) == r"Unknown layer conv\x1b[2J. Received: caf\udce9 x."


def test_very_long_texts_of_files_are_shortened():
    error = CnnkitError("`layers` must differ", received="a\n" * 10**6, hint="Rename one")
    assert len(str(error)) < MAX_PART + 100
    assert str(error).endswith("... (2,000,010 characters). Rename one.")
    assert len(str(unknown_name("layer", "b" * 10**6, ["conv1"] * 10**5))) < 2 * MAX_PART + 200


def test_a_warning_is_one_line_and_names_the_caller():
    with pytest.warns(RuntimeWarning) as caught:
        warn("no\x1b[2J\nlock", RuntimeWarning)
    assert str(caught[0].message) == r"no\x1b[2J\nlock"
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "character", ["\x00", "\x07", "\x1b", "\x7f", "\x85", "\x9b", "\xad", "\u200b", "\u200f",
                  "\u2028", "\u202e", "\u2060", "\u2066", "\u3164", "\ufeff", "\ud800",
                  "\U000e0041"]
)  # fmt: skip
def test_characters_that_move_hide_or_reverse_are_escaped(character):
    shown = escape_controls(f"a{character}b")
    assert shown.isascii() and shown.startswith("a\\") and shown.endswith("b")


def test_a_text_at_the_limit_is_whole():
    assert truncate("abc", 3) == "abc"
    assert truncate("abcd", 3) == "abc... (4 characters)"


def test_near_names_are_three_at_most_and_of_short_texts():
    assert near_names("conv", ["conv1", "conv2", "conv3", "conv4"]) == ["conv4", "conv3", "conv2"]
    assert near_names("a" * 100, ["a" * 99]) == ["a" * 99]
    assert near_names("a" * 101, ["a" * 100]) == near_names(5, ["5"]) == []
    assert near_names("ab", ["axyz", "abyz"]) == ["abyz"]
