"""Inputs: how they are converted, and how large batches are split."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnkit.client import Signature, TensorSpec
from cnnkit.client.inputs import (
    bind_inputs,
    check_finite,
    coerce_input,
    concat_batches,
    split_batch,
)
from cnnkit.errors import UsageError

OPEN = TensorSpec("float32", (None, 3))
BRAIN = np.array([1.5], ml_dtypes.bfloat16)


def test_whole_numbers_keep_their_values():
    spec = TensorSpec("uint8", (None,))
    assert coerce_input(np.array([1, 255]), spec, "x").dtype == np.uint8
    with pytest.raises(UsageError, match="wrong dtype"):
        coerce_input(np.array([256]), spec, "x")


def test_an_open_rank_is_left_to_the_server():
    assert coerce_input(np.zeros((2, 3)), TensorSpec("float32", None), "x").shape == (2, 3)


@given(rows=st.integers(1, 40), size=st.integers(1, 45), inputs=st.integers(1, 3))
def test_parts_make_the_whole(rows, size, inputs):
    names = "abc"[:inputs]
    whole = {name: np.arange(3.0 * rows).reshape(rows, 3) + i for i, name in enumerate(names)}
    signature = Signature(dict.fromkeys(names, OPEN), {"y": OPEN})
    parts = split_batch(whole, signature, size)
    assert all(1 <= len(array) <= size for part in parts for array in part.values())
    assert len(parts) == -(-rows // size)
    for name, array in concat_batches(parts).items():
        np.testing.assert_array_equal(array, whole[name])


def test_what_cannot_be_split_is_sent_whole():
    fixed, scalar = TensorSpec("float32", (3,)), TensorSpec("float32", ())
    x = np.zeros((100, 3), np.float32)
    for signature, inputs in (
        (Signature({"a": OPEN}, {"y": scalar}), {"a": x}),
        (Signature({"a": OPEN}, {"y": fixed}), {"a": x}),
        (Signature({"a": OPEN}, {"y": TensorSpec("float32", None)}), {"a": x}),
        (Signature({"a": OPEN, "b": scalar}, {"y": OPEN}), {"a": x, "b": np.float32(1)}),
        (Signature({"a": OPEN, "b": OPEN}, {"y": OPEN}), {"a": x, "b": x[:50]}),
    ):
        assert split_batch(inputs, signature, None) == [inputs]
        with pytest.raises(
            UsageError,
            match="`batch_size` must not be given for a signature whose rows cannot be split",
        ):
            split_batch(inputs, signature, 10)


def test_a_request_stays_below_the_limit_of_messages(monkeypatch):
    monkeypatch.setattr("cnnkit.client.inputs.MAX_REQUEST_BYTES", 100)
    parts = split_batch({"a": np.zeros((20, 3), np.float32)}, Signature({"a": OPEN}, {}), None)
    assert [len(part["a"]) for part in parts] == [8, 8, 4]
    strings = np.array([b"x" * 30] * 7, object)
    spec = TensorSpec("string", (None,))
    parts = split_batch({"a": strings}, Signature({"a": spec}, {}), None)
    assert [len(part["a"]) for part in parts] == [3, 3, 1]
    # A row that is too large by itself is left to the server.
    parts = split_batch({"a": np.array([b"x" * 300] * 2, object)}, Signature({"a": spec}, {}), None)
    assert [len(part["a"]) for part in parts] == [1, 1]


@pytest.mark.parametrize(
    ("given", "dtype", "expected"),
    [
        (np.float64([1.5]), "float32", np.float32([1.5])),
        (np.uint8([200]), "float16", np.float16([200])),
        (np.array([True]), "float32", np.float32([1])),
        (np.float64([np.inf, np.nan]), "float32", np.float32([np.inf, np.nan])),
        (np.int64([-128, 127]), "int8", np.int8([-128, 127])),
        (np.array([True, False]), "int64", np.int64([1, 0])),
        (np.int64([0, 1]), "bool", np.array([False, True])),
        (np.complex64([1j]), "complex128", np.complex128([1j])),
        (np.float32([1]), "complex64", np.complex64([1])),
        (BRAIN, "bfloat16", BRAIN),
        (["a", b"b"], "string", np.array(["a", b"b"], object)),
    ],
)
def test_values_that_an_input_takes(given, dtype, expected):
    found = coerce_input(given, TensorSpec(dtype, (None,)), "x")
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("given", "dtype", "text"),
    [
        (np.float32([1]), "int64", "has the wrong dtype. Expected: int64. Received: float32."),
        (np.int64([-129]), "int8", "has the wrong dtype. Expected: int8. Received: int64."),
        (np.int64([2]), "bool", "has the wrong dtype. Expected: bool. Received: int64."),
        (np.complex64([1]), "float32", "has the wrong dtype. Expected: float32. Received: comp"),
        (np.complex64([1]), "int8", "has the wrong dtype. Expected: int8. Received: complex64."),
        (["1"], "float32", "has the wrong dtype. Expected: float32. Received: string."),
        ([1.0], "string", "has the wrong dtype. Expected: string. Received: float64."),
        (BRAIN, "float32", "Expected: float32. Received: bfloat16."),
        (np.float32([1]), "bfloat16", "Expected: bfloat16. Received: float32."),
        (np.float32([1]), "data type 20", "Expected: data type 20. Received: float32."),
        (np.float64([1, -1e39]), "float32", "values that float32 cannot hold. Received: up to 1e+"),
        (np.array(["2026"], "M8[Y]"), "int64", "must be an array of a supported dtype. Expected: "),
        (
            [[1], [1, 2]],
            "float32",
            "must be an array of a supported dtype. Expected: float32 (n,).",
        ),
    ],
)
def test_values_that_an_input_does_not_take(given, dtype, text):
    with pytest.raises(UsageError) as caught:
        coerce_input(given, TensorSpec(dtype, (None,)), "x")
    assert str(caught.value).startswith("Input 'x' ") and text in str(caught.value)


@pytest.mark.parametrize(
    ("given", "shape", "found"),
    [
        ((2, 3), (None, 3), (2, 3)),
        ((3,), (None, 3), (1, 3)),
        ((3,), (1, 3), (1, 3)),
        ((), (None,), (1,)),
        ((), (), ()),
        ((3,), (2, 3), "has the wrong shape. Expected: float32 (2, 3). Received: [3]."),
        ((3, 3), (2, 3), "has the wrong shape. Expected: float32 (2, 3). Received: [3, 3]."),
        ((1, 2, 3), (None, 3), "has the wrong shape. Expected: float32 (n, 3)."),
        ((2,), (None, 3), "has the wrong shape. Expected: float32 (n, 3). Received: [1, 2]."),
        ((1,), (), "has the wrong shape. Expected: float32 (). Received: [1]."),
        ((0, 3), (None, 3), "is empty. Expected: a batch of 1 or more. Received: [0, 3]."),
        ((1, 0), None, "is empty. Expected: a batch of 1 or more. Received: [1, 0]."),
    ],
)
def test_a_batch_axis_is_added_where_it_is_missing(given, shape, found):
    array, spec = np.zeros(given, np.float32), TensorSpec("float32", shape)
    if isinstance(found, tuple):
        assert coerce_input(array, spec, "x").shape == found
        return
    with pytest.raises(UsageError) as caught:
        coerce_input(array, spec, "x")
    assert f"Input 'x' {found}" in str(caught.value)


def test_inputs_by_name():
    signature = Signature({"a": OPEN, "b": OPEN}, {})
    x = np.ones((1, 3))
    assert list(bind_inputs({"b": x, "a": x}, signature)) == ["b", "a"]
    for named, text in (
        (
            x,
            "`inputs` must be a dict for a signature with several inputs. Expected: a dict with a",
        ),
        ({"a": x}, "`inputs` must hold every input of the signature. Expected: a, b. Received: a."),
        ({}, "`inputs` must hold every input of the signature. Expected: a, b. Received: none."),
        ({"a": x, "b": x, "d": x}, "Unknown input 'd'"),
    ):
        with pytest.raises(UsageError) as caught:
            bind_inputs(named, signature)
        assert str(caught.value).startswith(text)


def test_only_images_must_be_finite():
    """Arrays of four axes with numbers that can be something else."""
    for array in (
        np.full((1, 2, 3), np.nan, np.float32),
        np.full((1, 1, 1, 1), 5, np.uint8),
        np.zeros((0, 1, 1, 1), np.float32),
        np.full((1, 1, 1, 1), b"x", object),
    ):
        check_finite({"x": array})
    images = np.zeros((3, 1, 1, 2), np.float32)
    images[1, 0, 0, 1], images[2] = -np.inf, np.nan
    with pytest.raises(UsageError) as caught:
        check_finite({"y": images[:1], "x": images})
    assert str(caught.value) == "Input 'x' must hold finite numbers. Received: -inf in x[1]."


def test_how_many_rows_a_request_has_by_default():
    """32, as serving/batching.config permits; fewer only where they are very large."""
    signature = Signature({"a": OPEN}, {"y": OPEN})
    for rows, sizes in ((32, [32]), (33, [32, 1]), (64, [32, 32])):
        parts = split_batch({"a": np.zeros((rows, 3), np.float32)}, signature, None)
        assert [len(part["a"]) for part in parts] == sizes
    # A batch is split all the same where each of many inputs is small.
    names = [str(number) for number in range(17)]
    large = {name: np.zeros((32, 131_072), np.float32) for name in names}
    several = Signature(dict.fromkeys(names, TensorSpec("float32", (None, None))), {})
    assert [len(part["0"]) for part in split_batch(large, several, None)] == [30, 2]
    del large["16"], several.inputs["16"]
    assert split_batch(large, several, None) == [large]
    with pytest.raises(UsageError, match="`batch_size` must be positive.*>= 1.*0"):
        split_batch({"a": np.zeros((1, 3))}, signature, 0)
