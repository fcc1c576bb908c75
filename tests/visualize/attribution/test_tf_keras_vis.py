"""The adapter to tf-keras-vis."""

import re
import sys
from pathlib import Path

import pytest

import cnnkit
from cnnkit.errors import UsageError
from cnnkit.visualize import saliency
from tests.visualize.attribution.networks import (
    NETWORKS,
)


def test_tf_keras_vis_is_imported_lazily(monkeypatch, images):
    package = Path(cnnkit.__file__).parent
    imports = re.compile(r"^\s*(import|from) tf_keras_vis", re.MULTILINE)
    assert not [file for file in package.rglob("*.py") if imports.search(file.read_text())]
    monkeypatch.setitem(sys.modules, "tf_keras_vis.saliency", None)
    with pytest.raises(
        UsageError, match="tf-keras-vis cannot be imported.*pip install tf-keras-vis"
    ):
        saliency(NETWORKS["ours"](), images)


def test_the_environment_variable_for_fewer_steps_is_refused(monkeypatch, images):
    monkeypatch.setenv("TF_KERAS_VIS_MAX_STEPS", "3")
    with pytest.raises(UsageError, match=r"TF_KERAS_VIS_MAX_STEPS .* Received: 3. Unset it"):
        saliency(NETWORKS["ours"](), images)
