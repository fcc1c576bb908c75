"""A softmax that carries the names of the classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from cnnkit.errors import UsageError


@keras.saving.register_keras_serializable(package="cnnkit", name="Probabilities")
class ClassProbabilities(keras.layers.Activation):
    """Activation over the classes that saves the class names with the model.

    Its registered name is `cnnkit>Probabilities`, as in the files of version 0.1.

    Input and output: (..., classes).

    Args:
        activation: The activation.
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
        self,
        activation: str | Callable[..., Any] = "softmax",
        class_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activation, **kwargs)
        self.class_names = None if class_names is None else tuple(class_names)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        names, classes = self.class_names, input_shape[-1]
        if names is not None and classes is not None and len(names) != classes:
            raise UsageError(
                "`class_names` must hold one name for every class",
                expected=f"{classes} names",
                received=len(names),
            )
        super().build(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "class_names": self.class_names}
