"""The model card and the assets."""

import json

import pytest

from cnnkit.export import ImageLimits
from cnnkit.export.reference_outputs import CREDIT
from tests.helpers.exported_network import LABELS


def test_assets_and_the_card(model, exported):
    assert (exported / "assets" / "labels.txt").read_text().split() == LABELS
    facts = json.loads((exported / "assets" / "preprocessing.json").read_text())
    assert facts["side"] == facts["shorter_side_before_crop"] == 64
    assert facts["features_layer"] == "fc7"
    # The spelling of version 0.1.0.
    assert facts["crop"] == "centre"
    assert facts["mean"] == pytest.approx(model.layers[1].mean.tolist(), abs=1e-3)
    assert facts["limits"]["pixels"] == ImageLimits().pixels
    card = (exported / "README.md").read_text()
    for text in (
        "# animals",
        f"alexnet, {model.count_params():,} parameters, float32",
        "6: ant, bee, cat, dog, elk, fox",
        "| `classify_bytes` | `image_bytes` string (n,) | `labels` string (n, 5), `scores` float32",
        "`projection` float32 (n, 64, 64, 3)",
        "cnnkit serve models/animals",
        CREDIT,
    ):  # fmt: skip
        assert text in card
