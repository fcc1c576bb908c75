"""Inputs: how they are converted, and how large batches are split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnkit.client import Signature, TensorSpec
from cnnkit.client.inputs import coerce_input, concat_batches, split_batch
from cnnkit.errors import UsageError

OPEN = TensorSpec("float32", (None, 3))


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
