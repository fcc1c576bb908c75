"""The one error in place of what parsers raise."""

import zlib

import pytest

from cnnkit._untrusted.damage import damage_as_error, shorten
from cnnkit.errors import DataError, RunError, UsageError


@pytest.mark.parametrize(
    "raised",
    [KeyError("a"), RecursionError(), OverflowError("big"), zlib.error("x"), MemoryError(),
     UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), NotImplementedError("method 99")],
)  # fmt: skip
def test_a_parsers_error_becomes_one_line(raised):
    with (
        pytest.raises(UsageError, match="^file.h5 is damaged") as caught,
        damage_as_error("file.h5", UsageError),
    ):
        raise raised
    assert "\n" not in str(caught.value)


def test_an_error_of_the_readers_keeps_its_words_and_others_pass():
    with pytest.raises(UsageError) as caught, damage_as_error("file.h5", UsageError):
        raise DataError("x is too large", expected="1", received="2", hint="Cut it")
    assert str(caught.value) == "x is too large. Expected: 1. Received: 2. Cut it."
    with pytest.raises(RunError, match="other"), damage_as_error("file.h5", UsageError):
        raise RunError("other")


def test_shorten_does_not_print_what_is_deep_or_long():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert shorten(deep) == "a list of 1"
    assert shorten({"a": 1, "b": 2}) == "an object of 2"
    assert shorten(2**200 - 1) == str(2**200 - 1)
    assert shorten(2**200) == "an integer of hundreds of digits"
    assert shorten(10**5000) == "an integer of hundreds of digits"
    assert len(shorten("x" * 10**6)) < 300


@pytest.mark.parametrize(
    ("raised", "received"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError("bad magic"), "bad magic"),
        (ValueError(), "ValueError"),
        (KeyError("a"), "KeyError: 'a'"),
        (OSError("short"), "OSError: short"),
    ],
)
def test_the_words_of_a_parsers_error_are_shown(raised, received):
    with pytest.raises(DataError) as caught, damage_as_error("file"):
        raise raised
    assert caught.value.received == received
