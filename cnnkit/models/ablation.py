"""Leaving layers out, as the papers did to see what they are worth."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cnnkit.errors import UsageError
from cnnkit.models.blocks import HeadConfig, Stage


def omittable_layers(stages: Sequence[Stage], head: HeadConfig) -> list[str]:
    """Returns the layers that may be left out: convolutions with nothing after them, hidden ones.

    These are what Krizhevsky et al. 2012 (section 7) and Zeiler & Fergus 2013 (Table 3) removed; a
    stage that pools or normalizes would take its pooling along.
    """
    plain = [
        f"conv{number}"
        for number, stage in enumerate(stages, start=1)
        if not (stage.pooled or stage.normalized)
    ]
    return [*plain, *head.names[:-1]]


def check_omitted_layers(
    network: str, drop: Collection[str], stages: Sequence[Stage], head: HeadConfig
) -> None:
    """Makes sure that every layer of `drop` may be left out.

    Raises:
        UsageError: If one is none of the droppable layers.
    """
    known = omittable_layers(stages, head)
    wrong = [name for name in drop if name not in known]
    if wrong or isinstance(drop, str):
        raise UsageError(
            f"{network} cannot leave out these layers",
            expected=f"a list of some of {', '.join(known)}",
            received=drop if isinstance(drop, str) else ", ".join(wrong),
        )
