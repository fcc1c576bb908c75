"""The output of a localizer: probabilities of the classes, and the boxes of their objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from cnnkit.errors import UsageError, unknown_name

PER_CLASS, SINGLE = "per-class", "single"
BOX_REGRESSIONS = (PER_CLASS, SINGLE)
# Numbers of a box: x and y of its center, its width and its height.
BOX_VALUES = 4


@keras.saving.register_keras_serializable(package="cnnkit")
class ClassBoxes(keras.layers.Layer):
    """Last layer of a localizer: a softmax over the classes, and boxes as they are.

    Simonyan & Zisserman 2014, appendix A: a box is the center, the width and the height, shared
    between the classes or one for each class. Here they are fractions of the side of the input.

    Input and output: (..., classes + 4 * boxes), with as many boxes as classes, or one.

    Args:
        class_names: One name for every class.
        regression: `"per-class"` for a box of each class, `"single"` for one box.

    Raises:
        UsageError: If there is no such regression, or the input has another size.

    Example:
        >>> import numpy as np
        >>> from cnnkit.layers import ClassBoxes
        >>> layer = ClassBoxes(("cat", "dog"), "single")
        >>> layer(np.array([[0.0, 0.0, 0.5, 0.5, 1.0, 0.8]], "float32")).numpy()
        array([[0.5, 0.5, 0.5, 0.5, 1. , 0.8]], dtype=float32)
    """

    def __init__(
        self, class_names: Sequence[str], regression: str = PER_CLASS, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if regression not in BOX_REGRESSIONS:
            raise unknown_name("regression", regression, BOX_REGRESSIONS)
        self.class_names, self.regression = tuple(class_names), regression

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        expected = output_units(len(self.class_names), self.regression)
        if input_shape[-1] != expected:
            raise UsageError(
                "The input of `ClassBoxes` must hold a logit and a box for the classes",
                expected=f"{expected} numbers",
                received=input_shape[-1],
            )
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        classes = len(self.class_names)
        probabilities = keras.ops.softmax(inputs[..., :classes])
        return keras.ops.concatenate([probabilities, inputs[..., classes:]], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = {"class_names": self.class_names, "regression": self.regression}
        return {**super().get_config(), **own}


def output_units(classes: int, regression: str) -> int:
    """Return the number of outputs of a localizer.

    Example:
        >>> output_units(1000, "per-class"), output_units(1000, "single")
        (5000, 1004)
    """
    return classes + BOX_VALUES * (classes if regression == PER_CLASS else 1)
