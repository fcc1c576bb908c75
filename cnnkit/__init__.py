"""cnnkit: AlexNet, VGG and the deconvnet on TensorFlow and Keras 3.

Importing this module imports no TensorFlow: public names are looked up when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from cnnkit._version import __version__ as __version__

if TYPE_CHECKING:
    from cnnkit.evaluation import evaluate as evaluate
    from cnnkit.models import alexnet as alexnet
    from cnnkit.models import load_model as load_model
    from cnnkit.models import vgg as vgg
    from cnnkit.models import vgg11 as vgg11
    from cnnkit.models import vgg11_lrn as vgg11_lrn
    from cnnkit.models import vgg13 as vgg13
    from cnnkit.models import vgg16 as vgg16
    from cnnkit.models import vgg16_c as vgg16_c
    from cnnkit.models import vgg19 as vgg19
    from cnnkit.models import zfnet as zfnet
    from cnnkit.training import train as train


# Where each public name lives; a module of ours is looked up under its own name.
_HOMES = {
    "alexnet": "cnnkit.models",
    "evaluate": "cnnkit.evaluation",
    "vgg": "cnnkit.models",
    "vgg11": "cnnkit.models",
    "vgg11_lrn": "cnnkit.models",
    "vgg13": "cnnkit.models",
    "vgg16": "cnnkit.models",
    "vgg16_c": "cnnkit.models",
    "vgg19": "cnnkit.models",
    "zfnet": "cnnkit.models",
    "load_model": "cnnkit.models",
    "train": "cnnkit.training",
}
_MODULES = (
    "client",
    "data",
    "evaluation",
    "export",
    "features",
    "layers",
    "models",
    "training",
    "transfer",
    "visualize",
)

__all__ = sorted({*_HOMES, *_MODULES})


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"cnnkit.{name}")
    raise AttributeError(f"module 'cnnkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
