"""VGG networks with an eighth of the filters, ours and those of keras.applications.

The whole networks have up to 144 million weights, which tests of files write, read and compare. The
kinds of layers, their names and their order are those of the whole networks.
"""

import contextlib
import functools
import importlib
import re

import keras
import pytest

from cnnkit.models.blocks import HeadConfig

DIVISOR = 8
# Instead of 4096, in each of the two hidden dense layers.
UNITS = 32

# The modules, one of which has the name of its function in the package.
vgg = importlib.import_module("cnnkit.models.vgg")
APPLICATIONS = ("vgg16", "vgg19")


class NarrowLayers:
    """The layers that keras.applications builds of, with fewer filters and units."""

    def __getattr__(self, name):
        return getattr(keras.layers, name)

    def Conv2D(self, filters, *given, **options):  # noqa: N802
        return keras.layers.Conv2D(filters // DIVISOR, *given, **options)

    def Dense(self, units, *given, **options):  # noqa: N802
        return keras.layers.Dense(UNITS if units == 4096 else units, *given, **options)


@contextlib.contextmanager
def narrow_vgg():
    """Builds narrow networks inside the block."""
    columns = {
        column: re.sub(r"-(\d+)", lambda width: f"-{int(width[1]) // DIVISOR}", words)
        for column, words in vgg.COLUMNS.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vgg, "COLUMNS", columns)
        patch.setattr(vgg, "HeadConfig", functools.partial(HeadConfig, units=UNITS))
        for name in APPLICATIONS:
            module = importlib.import_module(f"keras.src.applications.{name}")
            patch.setattr(module, "layers", NarrowLayers())
        yield
