"""What came along and what did not."""

from __future__ import annotations

from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class Surgery:
    """A changed network, and which of its layers hold weights of the network before.

    Layers without weights are in neither list.

    Args:
        model: The network.
        carried: Names of the layers whose weights came along, from the input to the output.
        fresh: Names of the layers whose weights did not: they are as their initializers made them,
            or, under `copy_weights`, as they were.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.models.surgery import replace_head
        >>> replace_head(alexnet(input_shape=(64, 64, 3), classes=3), 5).fresh
        ('fc8',)
    """

    model: keras.Model
    carried: tuple[str, ...]
    fresh: tuple[str, ...]
