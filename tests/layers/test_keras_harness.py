"""Every layer under the checks that Keras runs on its own layers.

Keras keeps them in a private module, so they are imported from one place, here. `make
test-backends` runs this file on JAX and PyTorch too.
"""

import pytest
from keras.src.testing import TestCase

from cnnkit.layers import (
    CeilMaxPooling2D,
    ClassProbabilities,
    Dropout,
    GroupedConv2D,
    LocalResponseNormalization,
    ReLU,
    SubtractMean,
)

# Keras warns of its own check: a generator with `shuffle=True`, and a model without weights.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:keras.src")

MAPS = (2, 5, 6, 8)

# Layer, arguments, input shape, output shape, trainable weights, further arguments of the check.
CASES = {
    "lrn": (LocalResponseNormalization, {"size": 3, "alpha": 0.1}, MAPS, MAPS, 0, {}),
    "lrn within": (LocalResponseNormalization, {"region": "within"}, MAPS, MAPS, 0, {}),
    # Its output has the dtype of its input under every policy.
    "relu": (
        ReLU, {}, MAPS, MAPS, 0, {"supports_masking": True, "run_mixed_precision_check": False},
    ),
    "grouped": (
        GroupedConv2D, {"filters": 4, "kernel_size": 3, "groups": 2}, MAPS, (2, 3, 4, 4), 2, {},
    ),
    "pooling": (CeilMaxPooling2D, {"pool_size": 3, "strides": 2}, MAPS, (2, 2, 3, 8), 0, {}),
    "dropout": (
        Dropout, {"rate": 0.3}, MAPS, MAPS, 0,
        {"supports_masking": True, "expected_num_seed_generators": 1,
         "expected_num_non_trainable_variables": 1, "call_kwargs": {"training": True}},
    ),
    "mean": (
        SubtractMean, {"mean": [1, 2, 3], "std": [4, 5, 6]}, (2, 5, 6, 3), (2, 5, 6, 3), 0, {},
    ),
    "probabilities": (
        ClassProbabilities, {"class_names": ["cat", "dog"]}, (3, 2), (3, 2), 0,
        {"supports_masking": True},
    ),
}  # fmt: skip
# Layers without weights; ClassProbabilities checks its names when it is built.
BUILT_AT_ONCE = {"lrn", "lrn within", "relu", "pooling", "dropout", "mean"}


@pytest.mark.parametrize("case", CASES)
def test_kerass_own_checks(case):
    layer, arguments, given, expected, weights, options = CASES[case]
    options = {"supports_masking": False, "expected_num_seed_generators": 0, **options}
    TestCase().run_layer_test(
        layer,
        arguments,
        input_shape=given,
        expected_output_shape=expected,
        expected_num_trainable_weights=weights,
        expected_num_non_trainable_weights=0,
        expected_num_losses=0,
        assert_built_after_instantiation=case in BUILT_AT_ONCE,
        **options,
    )
