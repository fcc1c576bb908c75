"""What every layer of ours does: build, keep its configuration, save, load, follow policies."""

import keras
import numpy as np

# Largest difference from float32, as a fraction of the largest output. bfloat16 keeps 8 bits, so
# rounding the input and the output costs up to 2 * 2**-9 of each; float16 keeps 11 bits. The layers
# measured stay below two thirds of these bounds; a result 3 % off does not.
TOLERANCES = {"float32": 1e-6, "mixed_bfloat16": 2**-7, "mixed_float16": 2**-10}


def check_layer(make, inputs: np.ndarray, directory) -> np.ndarray:
    """Checks the layer that `make(dtype=...)` returns on `inputs`; returns its float32 output."""
    reference = None
    weights = None
    for policy, tolerance in TOLERANCES.items():
        layer = make(dtype=policy)
        tensor = keras.Input(inputs.shape[1:])
        model = keras.Model(tensor, layer(tensor))
        if weights is None:
            weights = layer.get_weights()
        layer.set_weights(weights)
        outputs = layer(keras.ops.cast(inputs, layer.compute_dtype))
        assert keras.backend.standardize_dtype(outputs.dtype) == layer.compute_dtype
        assert tuple(outputs.shape)[1:] == tuple(model.output_shape)[1:]
        values = keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32"))
        if reference is None:
            reference = values
        difference = np.abs(values - reference).max() / np.abs(reference).max()
        assert difference <= tolerance

        again = type(layer).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
        path = directory / f"{policy}.keras"
        model.save(path)
        loaded = keras.saving.load_model(path)
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(keras.ops.cast(loaded(inputs), "float32")),
            keras.ops.convert_to_numpy(keras.ops.cast(model(inputs), "float32")),
        )
    return reference
