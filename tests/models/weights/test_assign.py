"""Assignment of weights to a network, without copies and on every replica."""

import numpy as np
import pytest
import tensorflow as tf

from cnnkit import load_model
from cnnkit.errors import UsageError
from cnnkit.models import alexnet
from cnnkit.models.weights.assign import ALIGNMENT, aligned_zeros, as_tensor_without_copy


def test_weights_reach_every_replica(small_alexnet, mirrored):
    with mirrored.scope():
        model = alexnet(include_top=False, weights=small_alexnet / "small.keras")
    expected = load_model(small_alexnet / "small.keras").get_layer("conv2").kernel.numpy()
    copies = mirrored.experimental_local_results(model.get_layer("conv2").kernel.value)
    assert len(copies) == 2
    for copy in copies:
        np.testing.assert_array_equal(copy.numpy(), expected)
    copies[0].assign_add(tf.ones_like(copies[0]))
    np.testing.assert_array_equal(copies[1].numpy(), expected)


def test_numbers_that_are_not_finite_are_refused(small_alexnet):
    arrays = dict(np.load(small_alexnet / "small.npz"))
    arrays["conv3_W"][1, 1, 5, 7] = np.nan
    np.savez(small_alexnet / "nan.npz", **arrays)
    with pytest.raises(UsageError, match=r"conv3_W \(3, 3, 256, 384\) has numbers that are not"):
        alexnet(include_top=False, weights=small_alexnet / "nan.npz")


def test_a_tensor_takes_the_memory_of_its_array():
    """Fails when TensorFlow copies what it gets through DLPack, or wants another alignment."""
    array = aligned_zeros((3, 5, 7))
    assert array.ctypes.data % ALIGNMENT == 0
    array[1, 2, 3] = 4
    tensor = as_tensor_without_copy(array)
    assert tensor.dtype == tf.float32
    np.testing.assert_array_equal(tensor, array)
    assert np.shares_memory(np.asarray(memoryview(tensor)), array)
