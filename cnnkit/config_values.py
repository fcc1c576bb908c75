"""Values that the configuration of a training writes as text: intervals and colors."""

from __future__ import annotations

import math
import re

from cnnkit.errors import UsageError

_SECONDS_PER_MINUTE = 60.0


def parse_interval(text: str | None) -> tuple[int | None, float | None]:
    """Returns the steps or the seconds of an interval between checkpoints.

    Args:
        text: `"500"` for steps, `"10m"` for minutes, None for neither.

    Raises:
        UsageError: If `text` is neither.

    Example:
        >>> parse_interval("500"), parse_interval("1.5m")
        ((500, None), (None, 90.0))
    """
    if text is None:
        return None, None
    try:
        if text.endswith("m"):
            steps, seconds = None, float(text[:-1]) * _SECONDS_PER_MINUTE
        else:
            steps, seconds = int(text), None
    except ValueError:
        steps, seconds = 0, 0.0
    if not 0 < (steps or seconds or 0) < math.inf:
        raise UsageError(
            "`checkpoint_every` must be steps as in 500, or minutes as in 10m", received=text
        )
    return steps, seconds


def parse_color(text: str) -> tuple[int, int, int] | None:
    """Returns the RGB levels, 0..255, of a background.

    Args:
        text: `white`, `black` or `#RRGGBB`; or `none`, which gives None.

    Raises:
        UsageError: If `text` is none of these.

    Example:
        >>> parse_color("#ff8000")
        (255, 128, 0)
    """
    named = {"white": (255, 255, 255), "black": (0, 0, 0), "none": None}
    if text in named:
        return named[text]
    if re.fullmatch("#[0-9a-fA-F]{6}", text) is None:
        raise UsageError(
            "`background` must be white, black, none or a color as in #ff8000", received=text
        )
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue
