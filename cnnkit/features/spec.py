"""What a feature of an image is, as one value that goes to JSON and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cnnkit.errors import UsageError, unknown_name

AGGREGATES = ("stack", "average", "max")
POOLS = ("flatten", "average", "max")


@dataclass(frozen=True)
class FeatureSpec:
    """From an image to a vector.

    Without `scales` the network sees the center of the image at one size. With `scales` it is
    applied to the whole image at each of them, and its answers are pooled over all positions, as
    Simonyan & Zisserman 2014, appendix B, do.

    Attributes:
        layer: Name of the layer; `fc6 fc7 fc8` also name VGG's dense layers.
        scales: Shorter sides of the image in pixels; empty for the center at one size.
        aggregate: What becomes of the vectors of several scales: one after the other (`"stack"`),
            their `"average"` or their elementwise `"max"`.
        flip: Whether the vector is averaged with that of the mirrored image.
        pool: What becomes of a map: its `"average"` or `"max"` over the positions, or `"flatten"`,
            all its values one after the other, which needs images of one size.
        l2: Whether the vector is divided by its Euclidean length in the end; zeros stay zero.
        image_size: Side of the center in pixels; None is the network's own.

    Raises:
        UsageError: If a field is out of range.

    Example:
        >>> from cnnkit.features import FeatureSpec
        >>> FeatureSpec.named("fc7", scales=(256, 384)).pool
        'average'
    """

    layer: str
    scales: tuple[int, ...] = ()
    aggregate: str = "stack"
    flip: bool = False
    pool: str = "flatten"
    l2: bool = True
    image_size: int | None = None

    def __post_init__(self) -> None:
        if self.aggregate not in AGGREGATES:
            raise unknown_name("aggregate", self.aggregate, AGGREGATES)
        if self.pool not in POOLS:
            raise unknown_name("pooling", self.pool, POOLS)
        sides = [*self.scales, *([] if self.image_size is None else [self.image_size])]
        if any(side < 1 for side in sides):
            raise UsageError("An image has pixels", expected="sides of at least 1", received=sides)
        if self.scales and self.pool == "flatten":
            raise UsageError(
                "Images of many sizes have maps of many sizes",
                expected=f"pool {' or '.join(POOLS[1:])} with scales",
                received=self.pool,
            )
        if self.scales and self.image_size is not None:
            raise UsageError(
                "With scales the whole image is seen",
                expected="scales or an image size",
                received=f"scales {self.scales} and image size {self.image_size}",
            )

    @classmethod
    def named(
        cls,
        layer: str,
        *,
        scales: tuple[int, ...] = (),
        aggregate: str = "stack",
        flip: bool | None = None,
        pool: str | None = None,
        l2: bool = True,
        image_size: int | None = None,
    ) -> FeatureSpec:
        """Returns the protocol with what is usual where nothing is said.

        With scales: mirrored, and averaged over the positions. Without: neither.
        """
        return cls(
            layer,
            tuple(scales),
            aggregate,
            bool(scales) if flip is None else flip,
            pool or ("average" if scales else "flatten"),
            l2,
            image_size,
        )

    def as_json(self) -> dict[str, Any]:
        """Returns it as plain values."""
        return {**dataclasses.asdict(self), "scales": list(self.scales)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> FeatureSpec:
        """Returns what `as_json` gave.

        Raises:
            UsageError: If a field is missing, unknown or out of range.
        """
        try:
            return cls(**{**fields, "scales": tuple(fields["scales"])})
        except (TypeError, KeyError) as error:
            raise UsageError("No feature protocol", received=error) from error
