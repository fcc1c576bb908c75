"""Check names of the parts of a network: units, classes, patterns of layers.

Commands check them before TensorFlow starts, and the functions of the package when the network is
there; both say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from numbers import Integral

from cnnkit.errors import UsageError, unknown_name

# Methods of boxes that only a network has that was trained with boxes.
REGRESSIONS = ("crop", "dense")
# What to take in place of an exported network.
EXPORTED_FROM = "Take the run or the .keras file that it was made of"


def without_boxes(method: str) -> UsageError:
    """Return the error for a method of `REGRESSIONS` and a network without boxes."""
    return UsageError(
        f"`method` {method} needs a network with boxes",
        expected="one that was trained with `TrainingConfig.task='localize'`",
        hint="`method='gradcam'` finds boxes by any classifier",
    )


def find_class(label: int | str, names: Sequence[str], classes: int, model: str) -> int:
    """Return the number of a class that is given by name or number.

    Args:
        label: A class name, or an index as a number or in digits. A name comes first.
        names: Names of the classes; none if they have numbers only.
        classes: Number of classes.
        model: Name of the model.

    Raises:
        UsageError: If there is no such class. The error offers the nearest names.

    Example:
        >>> find_class("dog", ("cat", "dog"), 2, "pets"), find_class("0", (), 2, "pets")
        (1, 0)
    """
    if isinstance(label, bool) or not isinstance(label, Integral | str):
        raise UsageError(
            "`label` must be the name or the number of a class",
            expected=f"a name or a whole number, 0 to {classes - 1}",
            received=repr(label),
        )
    if label in names:
        return names.index(str(label))
    try:
        index = int(label)
    except ValueError:
        hint = "" if names else f"Its classes have no names: give a number, 0 to {classes - 1}"
        raise unknown_name("class", str(label), names, hint=hint) from None
    if not 0 <= index < classes:
        raise UsageError(
            f"Model {model!r} has no class {label}", expected=f"0 to {classes - 1}", received=label
        )
    return index


def check_unit(layer: str, unit: int | str, count: int) -> None:
    """Check that a layer with some number of units has a unit, a number or its digits.

    Raises:
        UsageError: If it has not.
    """
    is_number = str(unit).isdecimal()
    if not is_number or not 0 <= int(unit) < count:
        raise UsageError(
            f"Layer {layer!r} has no unit {unit}", expected=f"0 to {count - 1}", received=unit
        )


def check_class_names(names: Sequence[str], classes: int) -> None:
    """Check that there is a name for each class of a network.

    Raises:
        UsageError: If there is another number of names.
    """
    if len(names) != classes:
        raise UsageError(
            "`class_names` must hold a name for each class of the network",
            expected=f"{classes} names",
            received=len(names),
        )


def check_square(square: Sequence[int], sides: Sequence[int]) -> None:
    """Check that a square of an occlusion lies within the image.

    Args:
        square: Height and width of the square in pixels.
        sides: Height and width of the image.

    Raises:
        UsageError: If it does not.
    """
    if square[0] > sides[0] or square[1] > sides[1]:
        raise UsageError(
            "`square` must not be larger than the image",
            expected=f"at most {sides[0]} x {sides[1]}",
            received=f"{square[0]} x {square[1]}",
        )


def check_crop_side(side: int, image_size: int | None) -> None:
    """Check that a size that is given for a network is the one that it has anyway.

    Args:
        side: Side of the crops that the network sees, in pixels.
        image_size: The given one; None for none.

    Raises:
        UsageError: If it is another.
    """
    if image_size not in (None, side):
        raise fixed_image_size(side, image_size)


def check_scale(smallest: int, image_size: int) -> None:
    """Check that the shorter side of rescaled images is not smaller than their crop.

    Args:
        smallest: The smallest shorter side, in pixels.
        image_size: Side of the crop, in pixels.

    Raises:
        UsageError: If it is.
    """
    if smallest < image_size:
        raise UsageError(
            "The shorter side in `scale` is too small for the crop",
            expected=f"at least {image_size}",
            received=smallest,
        )


def fixed_image_size(expected: object, received: object) -> UsageError:
    """Return the error for a size that is given for a network whose images have another one."""
    return UsageError(
        "`image_size` must be left out for a network whose images have a fixed size",
        expected=f"{expected}, or nothing",
        received=received,
    )


def check_exported_explanation(method: str, target: int | str | None) -> None:
    """Check that an exported network, which has no gradients, can explain its answers so.

    Raises:
        UsageError: If the method is not the deconvnet, or a class is given.
    """
    if method != "deconvnet" or target is not None:
        raise UsageError(
            "`explain` of an exported network must be deconvnet, without a `target`",
            received=method if target is None else f"class {target}",
            hint=EXPORTED_FROM,
        )


def match_frozen(names: Sequence[str], patterns: Iterable[str], model: str) -> frozenset[str]:
    """Return the layers that patterns freeze.

    Args:
        names: Names of the layers with weights.
        patterns: Names or patterns of layers; the last one that fits a layer decides, and `!`
            before it means that the layer learns.
        model: Name of the model.

    Raises:
        UsageError: If a pattern fits no layer, or no layer is left to learn.

    Example:
        >>> sorted(match_frozen(["conv1", "fc6", "fc8"], ["*", "!fc?"], "net"))
        ['conv1']
    """
    frozen: set[str] = set()
    patterns = list(patterns)
    for pattern in patterns:
        fitting = {name for name in names if fnmatchcase(name, pattern.removeprefix("!"))}
        if not fitting:
            raise UsageError(
                f"`freeze` must name layers of {model} that have weights",
                expected=f"names or patterns of {', '.join(names)}",
                received=pattern,
            )
        frozen = frozen - fitting if pattern.startswith("!") else frozen | fitting
    if names and len(frozen) == len(names):
        raise UsageError(
            f"`freeze` must leave a layer of {model} that learns",
            received=", ".join(patterns),
            hint=f"`* !{names[-1]}` freezes all but the last one",
        )
    return frozenset(frozen)


def check_multipliers(field: str, patterns: Iterable[str], names: Sequence[str]) -> None:
    """Check that each pattern fits a weight of a network.

    Args:
        field: The field of the configuration with the patterns.
        patterns: Patterns of `LAYER/VARIABLE`.
        names: The weights.

    Raises:
        UsageError: If one fits none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(
                f"The pattern {pattern!r} of {field} fits no weights",
                expected=f"a pattern of {', '.join(names)}",
            )
