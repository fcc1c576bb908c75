"""How much a served network takes at once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from cnnkit.errors import UsageError

# Beyond, the sides of a rescaled image would leave 32 bits.
LONGEST_SIDE = 65_535


@dataclass(frozen=True)
class Limits:
    """What an exported network refuses, before it decodes anything.

    A file of a few kilobytes can unfold to gigabytes; these limits bound what one request costs.

    Attributes:
        images: Images in one request.
        file_bytes: Bytes of an encoded image.
        pixels: Pixels of an encoded image, height times width.
        free_pixels: Pixels of an image that a fully convolutional network takes as numbers. Its
            maps are many times larger than the image: about 3 kB a pixel for VGG-16.

    Raises:
        UsageError: If a limit is below 1.

    Example:
        >>> from cnnkit.export import Limits
        >>> Limits(pixels=4_000_000).file_bytes
        20971520
    """

    images: int = 256
    file_bytes: int = 20 << 20
    pixels: int = 50_000_000
    free_pixels: int = 2048 * 2048

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise UsageError(
                    f"The limit {name} lets nothing through", expected="1 or more", received=value
                )
