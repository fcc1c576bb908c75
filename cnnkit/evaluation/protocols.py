"""Test protocols of the papers: the crops or whole images of which the predictions are averaged."""

from __future__ import annotations

from dataclasses import dataclass

from cnnkit.data.multi_crop import CENTER, CORNERS_AND_CENTER, GRID
from cnnkit.errors import unknown_name

AVERAGES = ("scores", "probabilities")


@dataclass(frozen=True)
class TestProtocol:
    """Views of a test image that a network is applied to.

    Attributes:
        name: Name of the protocol.
        positions: Top and left of the crops as fractions, 0..1, of the room between image and crop;
            empty if there are no crops.
        central_square: Whether the crops stay inside the central square of the image.
        dense: Whether the network is applied at every position of the uncropped image.
        flip: Whether mirror images are used too.
        source: Paper and section.
    """

    # Not a test class, though its name begins like one.
    __test__ = False

    name: str
    positions: tuple[tuple[float, float], ...] = ()
    central_square: bool = False
    dense: bool = False
    flip: bool = True
    source: str = ""


# Test protocols of the papers by name.
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        TestProtocol("center", positions=CENTER, flip=False, source="the usual center crop"),
        TestProtocol(
            "ten-crop",
            positions=CORNERS_AND_CENTER,
            central_square=True,
            source="Krizhevsky et al. 2012, section 4.1",
        ),
        TestProtocol("dense", dense=True, source="Simonyan & Zisserman 2014, section 3.2"),
        TestProtocol("multi-crop", positions=GRID, source="Simonyan & Zisserman 2014, section 3.2"),
        TestProtocol(
            "dense+multi-crop",
            positions=GRID,
            dense=True,
            source="Simonyan & Zisserman 2014, section 4.3",
        ),
    )
}


def find_protocol(name: str) -> TestProtocol:
    """Return the protocol called `name`.

    Raises:
        UsageError: If `name` is unknown.

    Example:
        >>> from cnnkit.evaluation.protocols import find_protocol
        >>> len(find_protocol("multi-crop").positions)
        25
    """
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def check_average(average: str | None) -> None:
    """Check that `average` is None or the name of an average.

    Raises:
        UsageError: If it is not.
    """
    if average is not None and average not in AVERAGES:
        raise unknown_name("average", average, AVERAGES)
