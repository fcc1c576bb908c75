"""Specification of a feature: how an image becomes a vector."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnkit._feature_options import MAX_SCALES, MAX_SIDE, check_feature_options
from cnnkit._untrusted.damage import shorten
from cnnkit._untrusted.json_documents import JsonFields
from cnnkit.errors import DataError, UsageError


@dataclass(frozen=True)
class FeatureSpec:
    """How an image becomes a feature vector.

    Without `scales` the network is applied once, to the center crop of the image. With `scales` it
    is applied to the whole image at each scale, and its outputs are pooled over all positions
    (Simonyan & Zisserman 2014, appendix B).

    Attributes:
        layer: Name of the layer; `fc6 fc7 fc8` also name VGG's dense layers.
        scales: Shorter sides of the image in pixels; empty for the center crop.
        aggregate: How the vectors of several scales are combined: concatenated (`"stack"`), their
            `"average"` or their elementwise `"max"`.
        flip: Whether the vector is averaged with the vector of the mirrored image.
        pool: How a map becomes a vector: its `"average"` or `"max"` over the positions, or
            `"flatten"`, which keeps every value and needs images of one size.
        l2: Whether the vector is divided by its Euclidean length at the end; zeros stay zero.
        image_size: Side of the center crop in pixels; None takes the input size of the network.

    Raises:
        UsageError: If a field is out of range.

    Example:
        >>> from cnnkit.features import FeatureSpec
        >>> FeatureSpec.with_defaults("fc7", scales=(256, 384)).pool
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
        check_feature_options(self.scales, self.aggregate, self.pool, self.image_size)

    @classmethod
    def with_defaults(
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
        """Return a spec with defaults filled in.

        The default of `flip` is True with `scales` and False without. The default of `pool` is
        `"average"` with `scales` and `"flatten"` without.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as values that JSON can hold."""
        return {**dataclasses.asdict(self), "scales": list(self.scales)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], origin: str | Path = "`fields`") -> FeatureSpec:
        """Create a spec from the output of `to_dict`.

        Args:
            fields: The fields.
            origin: Where they were read, for the error message.

        Raises:
            DataError: If a field is missing, unknown, of another type or out of range.
        """
        stored = JsonFields(fields, origin)
        known = [one.name for one in dataclasses.fields(cls)]
        if unknown := sorted(set(stored) - set(known)):
            raise DataError(
                f"{origin} must have the fields of a FeatureSpec", received=shorten(unknown[0])
            )
        try:
            return cls(
                stored.text("layer"),
                stored.integers("scales", minimum=1, maximum=MAX_SIDE, max_count=MAX_SCALES),
                stored.text("aggregate"),
                stored.boolean("flip"),
                stored.text("pool"),
                stored.boolean("l2"),
                stored.integer("image_size", minimum=1, maximum=MAX_SIDE, default=None),
            )
        except UsageError as error:
            raise DataError(f"{origin} must be those of a FeatureSpec", received=error) from error
