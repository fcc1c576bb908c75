"""Finding the networks that a weights file fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnnkit._networks import DIFFERENCES
from cnnkit.errors import UsageError
from cnnkit.models import BUILDERS
from cnnkit.models.summary import build_without_weights
from cnnkit.models.weights.match import check_normalization_match, match_layers
from cnnkit.models.weights.weights_file import WeightsFile


@dataclass(frozen=True)
class Compatibility:
    """Result of matching a network with a weights file.

    Attributes:
        network: Name of the network, as `build` takes it.
        include_top: Whether the file has the dense layers too.
        problem: Reason why the file does not fit, or None if it does.
        matched: Number of layers, from the first one, whose kernels have the same shapes in the
            file and in the network.
    """

    network: str
    include_top: bool
    problem: str | None
    matched: int


def compatible_networks(file: WeightsFile) -> list[Compatibility]:
    """Match a weights file with every network at its training size, best match first.

    Shapes alone do not distinguish the variants of AlexNet. If the file declares its
    normalizations, these decide. Otherwise Caffe's variants come first for a file of Caffe, and
    the others first for any other file.

    Args:
        file: Result of `open_weights`.
    """
    found = [_compare(name, file) for name in BUILDERS]
    from_caffe = file.channels == "BGR"
    return sorted(
        found,
        key=lambda fit: (
            fit.problem is not None,
            -fit.matched,
            from_caffe != ("caffe" in fit.network),
        ),
    )


def only_compatible(file: WeightsFile) -> str:
    """Return the name of the only network that a weights file fits.

    Args:
        file: Result of `open_weights`.

    Raises:
        UsageError: If none fits, or several do.
    """
    fitting = [found.network for found in compatible_networks(file) if found.problem is None]
    if not fitting:
        raise UsageError(
            f"`model` must name the network of {file.path}",
            expected=f"one of {', '.join(BUILDERS)}",
            received="weights that fit none of them as they are",
            hint="`cnnkit weights inspect FILE` says what differs",
        )
    if len(fitting) > 1:
        raise UsageError(
            f"`model` must name the network of {file.path}, whose arrays fit several",
            expected=describe_differences(fitting),
            hint="Choose by where the file comes from: the wrong one gives wrong outputs",
        )
    return fitting[0]


def describe_differences(networks: Sequence[str]) -> str:
    """Return the names of networks, each with what tells it from networks of the same shapes.

    Args:
        networks: Keys of `BUILDERS`.

    Example:
        >>> describe_differences(["vgg11", "vgg11_lrn"])
        'vgg11 (column A: without normalization) or vgg11_lrn (column A-LRN: with normalization)'
    """
    named = [f"{one} ({DIFFERENCES[one]})" if one in DIFFERENCES else one for one in networks]
    return " or ".join(filter(None, (", ".join(named[:-1]), named[-1])))


def _compare(name: str, file: WeightsFile) -> Compatibility:
    has_top = file.classes is not None
    options = {"classes": file.classes} if has_top else {}
    with build_without_weights(name, include_top=has_top, **options) as model:
        problem = None
        try:
            match_layers(model, file)
            check_normalization_match(model, file)
        except UsageError as error:
            problem = str(error)
        shapes = [tuple(layer.kernel.shape) for layer in model.layers if hasattr(layer, "kernel")]
    matched = 0
    for layer, shape in zip(file.layers, shapes, strict=False):
        if sorted(layer.kernel.shape) != sorted(shape):
            break
        matched += 1
    return Compatibility(name, has_top, problem, matched)
