"""The table of test protocols."""

import pytest

from cnnkit.errors import UsageError
from cnnkit.evaluation.protocols import PROTOCOLS, check_average, find_protocol


def test_the_protocols_of_the_papers():
    """Krizhevsky et al.: five crops and mirror images; Simonyan & Zisserman: 25, or dense."""
    views = {
        name: (len(p.positions), p.central_square, p.dense, p.flip) for name, p in PROTOCOLS.items()
    }
    assert views == {
        "center": (1, False, False, False),
        "ten-crop": (5, True, False, True),
        "dense": (0, False, True, True),
        "multi-crop": (25, False, False, True),
        "dense+multi-crop": (25, False, True, True),
    }
    assert all(p.name == name and p.source for name, p in PROTOCOLS.items())


def test_unknown_names():
    with pytest.raises(UsageError, match="Unknown protocol 'tencrop'.*Did you mean ten-crop"):
        find_protocol("tencrop")
    with pytest.raises(UsageError, match="Unknown average 'score'.*Did you mean scores"):
        check_average("score")
    check_average(None)
