"""The softmax at the end, which knows what its classes are called."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from cnnkit.errors import UsageError


@keras.saving.register_keras_serializable(package="cnnkit", name="Probabilities")
class ClassProbabilities(keras.layers.Activation):
    """An activation over the classes that carries their names, so that they travel with the model.

    Input and output: (..., classes).

    Args:
        activation: The activation, `"softmax"` as a rule.
        class_names: One name for every class, or None.

    Raises:
        UsageError: If the number of names is not the number of classes.

    Example:
        >>> import numpy as np
        >>> from cnnkit.layers import ClassProbabilities
        >>> layer = ClassProbabilities(class_names=("cat", "dog"))
        >>> layer(np.zeros((1, 2), "float32")).numpy()
        array([[0.5, 0.5]], dtype=float32)
    """

    def __init__(
        self, activation="softmax", class_names: Sequence[str] | None = None, **kwargs
    ) -> None:
        super().__init__(activation, **kwargs)
        self.class_names = None if class_names is None else tuple(class_names)

    def build(self, input_shape):
        names, classes = self.class_names, input_shape[-1]
        if names is not None and classes is not None and len(names) != classes:
            raise UsageError(
                "The class names do not fit the network",
                expected=f"{classes} names",
                received=len(names),
            )
        super().build(input_shape)

    def get_config(self):
        return {**super().get_config(), "class_names": self.class_names}
