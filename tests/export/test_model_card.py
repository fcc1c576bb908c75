"""The model card and the assets."""

import json
from types import SimpleNamespace

import pytest
from markdown_it import MarkdownIt

from cnnkit.errors import escape_controls
from cnnkit.export import ImageLimits
from cnnkit.export.model_card import Origin, write_card
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


def test_names_are_shown_by_the_card_and_make_no_markup(tmp_path):
    name = (
        "a|b\n# c <img src=x onerror=alert(1)> [d](http://e) `f` *g* _h_ $i$ &amp; www.j.k \u202el"
    )
    network = SimpleNamespace(
        model=SimpleNamespace(name=name, count_params=lambda: 7),
        dtype="float32",
        image_size=8,
        variable_size=False,
        features_layer="fc`7|",
    )
    preprocessing = {"mean": None, "std": None, "shorter_side_before_crop": 8, "resize": "r"}
    preprocessing |= {"background": None, "exif_orientation": True, "limits": {"pixels": 9}}
    write_card(tmp_path, "x", network, [name], preprocessing, {}, Origin(name, name))
    tokens = MarkdownIt("commonmark").enable("table").parse((tmp_path / "README.md").read_text())
    inline = [child for token in tokens for child in token.children or ()]
    kinds = {child.type for child in inline}
    assert kinds == {"text", "text_special", "code_inline", "softbreak"} or kinds == {
        "text", "code_inline", "softbreak"
    }  # fmt: skip
    shown = escape_controls(name)
    texts = ["".join(c.content for c in t.children) for t in tokens if t.type == "inline"]
    assert f"{shown}, 7 parameters, float32" in texts and f"1: {shown}" in texts
    assert f"A SavedModel for TensorFlow Serving, written by cnnkit from {shown}." in texts
    assert [token.content for token in tokens if token.type == "heading_open"] == [""] * 4
    assert "Features are those of fc`7\\|, of length 1." in "\n".join(texts)
