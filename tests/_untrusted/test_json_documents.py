"""JSON of strangers."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit._untrusted.json_documents import JsonFields, parse_json, read_json
from cnnkit.errors import CnnkitError, DataError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 200 + "]" * 200, "inside each other"),
        ("[" * 1_000_000, "inside each other"),
        ('{"a": 1, "a": 2}', "the name 'a' twice"),
        ("NaN", "the number NaN"),
        ("[-Infinity]", "the number -Infinity"),
        ("1e999", "the number 1e999"),
        ("1" * 5000, "not valid JSON"),
        ("{", "not valid JSON"),
        ("", "not valid JSON"),
        ('"\ud800', "not valid JSON"),
    ],
)
def test_what_is_not_sensible_json_is_refused_in_one_line(text, message):
    with pytest.raises(DataError, match=message) as caught:
        parse_json(text, "x.json")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("data", [b'"\xff"', b'{"a":\0 1}', b"\xff\xfe{\0}\0"])
def test_bytes_must_be_utf_8(tmp_path, data):
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(DataError, match="UTF-8"):
        read_json(path)


def test_lists_and_objects_at_their_limit_are_read():
    """A hundred inside each other, and any number beside each other."""
    assert parse_json("[" * 100 + "]" * 100, "x")
    with pytest.raises(DataError, match="at most 100 lists and objects inside each other"):
        parse_json('{"a":' + "[" * 100 + "]" * 100 + "}", "x")
    assert parse_json("[" + "[],{}," * 200 + "1]", "x")[-1] == 1
    assert parse_json("[1, 2]", "x", max_bytes=6) == [1, 2]


def test_nan_can_be_allowed_and_brackets_in_texts_do_not_count():
    assert parse_json("[Infinity]", "x", nan=True) == [float("inf")]
    assert parse_json(json.dumps(["[" * 500, '\\"' + "{" * 500]), "x")
    with pytest.raises(DataError, match="x is too large"):
        parse_json("[1, 2]", "x", max_bytes=5)


FIELDS = {
    "n": 3,
    "x": 0.5,
    "b": True,
    "t": "cat",
    "ts": ["a"],
    "is": [1],
    "o": {"n": 1},
    "null": None,
}


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda f: f.integer("b"), "`b` in f must be an integer from 0"),
        (lambda f: f.integer("x"), "`x` in f must be an integer"),
        (lambda f: f.integer("n", maximum=2), "from 0 to 2. Received: 3"),
        (lambda f: f.integer("m"), "f has no `m`"),
        (lambda f: f.number("b"), "`b` in f must be a finite number"),
        (lambda f: f.number("x", minimum=1), "of at least 1"),
        (lambda f: f.number("huge"), "finite number"),
        (lambda f: f.boolean("n"), "`n` in f must be true or false"),
        (lambda f: f.text("n"), "`n` in f must be a text"),
        (lambda f: f.text("t", max_length=2), "at most 2 characters"),
        (lambda f: f.text("zero"), "must be a text"),
        (lambda f: f.text("surrogate"), "must be a text"),
        (lambda f: f.texts("is"), "`is` in f must be a list of texts"),
        (lambda f: f.texts("ts", max_count=0), "list of texts"),
        (lambda f: f.integers("ts"), "`ts` in f must be a list of integers"),
        (lambda f: f.items("o"), "`o` in f must be a list"),
        (lambda f: f.fields("t"), "`t` in f must be a JSON object"),
        (lambda f: f.fields("o").text("n"), "`o.n` in f must be a text"),
        (lambda f: f.text("null"), "`null` in f must be a text"),
        (lambda f: f.integer("n", minimum=4), "an integer from 4 to"),
        (lambda f: f.number("x", maximum=0.4), "of at most 0.4"),
        (lambda f: f.texts("ts", max_length=0), "list of texts of at most 0"),
        (lambda f: f.integers("is", minimum=2), "list of integers from 2"),
        (lambda f: f.integers("is", maximum=0), "list of integers from 0 to 0"),
        (lambda f: f.integers("is", max_count=0), "list of integers"),
        (lambda f: f.items("is", max_count=0), "`is` in f must be a list"),
        (lambda f: f.numbers("is", count=2), "a list of 2 numbers"),
        (lambda f: f.numbers("is", count=0), "`is` in f must be a list"),
        (lambda f: f.numbers("is", count=1, minimum=1.5), "1 numbers from 1.5 to inf"),
        (lambda f: f.numbers("is", count=1, maximum=0.5), "from -inf to 0.5"),
        (lambda f: f.numbers("ts", count=1), "a list of 1 numbers"),
    ],
)  # fmt: skip
def test_fields_have_types_and_ranges(read, message):
    document = {**FIELDS, "huge": 10**400, "zero": "a\0", "surrogate": "\ud800"}
    with pytest.raises(DataError, match=message):
        read(JsonFields(document, "f"))


def test_fields_are_returned_with_their_defaults():
    fields = JsonFields(FIELDS, "f")
    assert fields.integer("n") == 3 and fields.integer("m", default=None) is None
    assert fields.number("n") == 3.0 and fields.number("x", maximum=1) == 0.5
    assert fields.boolean("b") and fields.text("t") == "cat" and "t" in fields
    assert fields.texts("ts") == ("a",) and fields.integers("is") == (1,)
    # The limits themselves.
    assert fields.integer("n", minimum=3, maximum=3) == 3
    assert fields.number("x", minimum=0.5, maximum=0.5) == 0.5
    assert fields.text("t", max_length=3) == "cat"
    assert fields.texts("ts", max_count=1, max_length=1) == ("a",)
    assert fields.integers("is", minimum=1, maximum=1, max_count=1) == (1,)
    assert fields.items("is", max_count=1) == [1]
    assert fields.numbers("is", count=1, minimum=1, maximum=1) == (1.0,)
    assert fields.fields("o").integer("n") == 1 and fields.items("ts") == ["a"]
    assert list(fields) == list(FIELDS)
    with pytest.raises(DataError, match="f must be a JSON object"):
        JsonFields([], "f")


@settings(max_examples=50)
@given(st.binary(max_size=60) | st.text(alphabet='[]{}":,0123456789eE.-nulltrue\\', max_size=40))
def test_any_bytes_give_a_value_or_a_clear_error(data):
    with contextlib.suppress(CnnkitError):
        parse_json(data, "x.json")
