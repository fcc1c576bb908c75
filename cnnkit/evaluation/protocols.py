"""The papers' ways of testing a network on an image, by name."""

from __future__ import annotations

from dataclasses import dataclass

from cnnkit.data.multi_crop import CENTER, CORNERS_AND_CENTER, GRID
from cnnkit.errors import unknown_name

AVERAGES = ("scores", "probabilities")


@dataclass(frozen=True)
class TestProtocol:
    """How a network looks at a test image.

    Attributes:
        name: What it is called.
        places: Top and left of the crops as parts, 0..1, of the free play; none without crops.
        square: Whether the crops stay inside the central square of the image.
        dense: Whether the network is applied at every position of the uncropped image.
        flip: Whether everything is looked at in the mirror too.
        source: Who tests like this.
    """

    name: str
    places: tuple[tuple[float, float], ...] = ()
    square: bool = False
    dense: bool = False
    flip: bool = True
    source: str = ""


# Test protocols of the papers by name.
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        TestProtocol("center", places=CENTER, flip=False, source="one look at the middle"),
        TestProtocol(
            "ten-crop",
            places=CORNERS_AND_CENTER,
            square=True,
            source="Krizhevsky et al. 2012, section 4.1",
        ),
        TestProtocol("dense", dense=True, source="Simonyan & Zisserman 2014, section 3.2"),
        TestProtocol("multi-crop", places=GRID, source="Simonyan & Zisserman 2014, section 3.2"),
        TestProtocol(
            "dense+multi-crop",
            places=GRID,
            dense=True,
            source="Simonyan & Zisserman 2014, section 4.3",
        ),
    )
}


def find_protocol(name: str) -> TestProtocol:
    """Returns the protocol called `name`.

    Raises:
        UsageError: If there is none.

    Example:
        >>> from cnnkit.evaluation.protocols import find_protocol
        >>> len(find_protocol("multi-crop").places)
        25
    """
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def check_average(average: str | None) -> None:
    """Makes sure that `average` names a rule, or is None.

    Raises:
        UsageError: If it names no rule.
    """
    if average is not None and average not in AVERAGES:
        raise unknown_name("average", average, AVERAGES)
