"""Errors: one line of problem, expectation, value and advice; suggestions for unknown names."""

import pytest

from cnnkit.errors import CnnkitError, DataError, RunError, UsageError, unknown_name


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
