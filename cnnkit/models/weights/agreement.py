"""Whether a network normalizes as the one that was trained: shapes do not tell."""

from __future__ import annotations

import keras

from cnnkit.errors import UsageError
from cnnkit.layers import LocalResponseNormalization
from cnnkit.models.weights.stored import Normalization, WeightsFile

DIGITS = 6  # Caffe's files keep constants in float32.


def check_normalization(model: keras.Model, file: WeightsFile) -> None:
    """Refuses weights of a network that normalizes in another way: they fit, and mean nothing.

    Raises:
        UsageError: If the file declares another normalization, another place for it, or none.
    """
    ours = {x.name: x for x in model.layers if isinstance(x, LocalResponseNormalization)}
    if file.normalizations is None and ours:
        raise UsageError(
            f"{file.path} is of a network without normalization, which {model.name} has",
            hint="For torchvision's AlexNet: preset='torchvision'",
        )
    for name, layer in ours.items():
        declared = (file.normalizations or {}).get(name)
        if declared is not None and _rounded(declared) != _rounded(_declaration(layer)):
            raise UsageError(
                f"{file.path} was trained with another normalization {name!r} than {model.name}",
                expected=_declaration(layer),
                received=declared,
                hint="Build the network with the preset that the file was trained with",
            )
    names = [layer.name for layer in model.layers]
    for name in ours:
        pool = name.replace("norm", "pool")
        if file.pooled_first is None or pool not in names:
            continue
        ours_first = names.index(pool) < names.index(name)
        if ours_first != (name in file.pooled_first):
            raise UsageError(
                f"{file.path} was trained with {name!r} {'before' if ours_first else 'after'} its"
                f" pooling, {model.name} has it {'after' if ours_first else 'before'}",
                hint="preset='caffe' normalizes first, preset='caffenet' pools first",
            )


def _declaration(layer: LocalResponseNormalization) -> Normalization:
    within = layer.region == "within"
    cells = layer.size**2 if within else layer.size
    alpha = layer.alpha / cells if layer.alpha_convention == "mean" else layer.alpha
    return Normalization(layer.size, alpha, layer.beta, layer.k, within)


def _rounded(one: Normalization) -> tuple:
    return (one.size, one.within, *(float(f"{x:.{DIGITS}g}") for x in (one.alpha, one.beta, one.k)))
