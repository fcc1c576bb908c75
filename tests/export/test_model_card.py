"""The model card and the assets."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from markdown_it import MarkdownIt

from cnnkit.data import Augmentation, Decoding
from cnnkit.errors import escape_controls
from cnnkit.export import ImageLimits
from cnnkit.export.model_card import (
    Origin,
    code_text,
    describe_preprocessing,
    facts_table,
    plain_text,
    preprocessing_text,
    write_card,
)
from cnnkit.export.reference_outputs import CREDIT
from cnnkit.models.preprocessing import Preprocessing
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


def test_names_of_500_characters_are_shown_whole():
    for text in (plain_text, code_text):
        assert "a" * 500 in text("a" * 500) and "..." not in text("a" * 500)
        assert f"{'a' * 500}... (501 characters)" in text("a" * 501)


def network(**change):
    given = {
        "model": SimpleNamespace(name="net", count_params=lambda: 7),
        "dtype": "float32",
        "image_size": 8,
        "variable_size": False,
        "features_layer": None,
        "preprocessing": None,
        **change,
    }
    return SimpleNamespace(**given)


def test_the_facts_of_a_network(tmp_path):
    """The mean color of a mean image, to four digits, and what the other settings change."""
    mean = np.arange(12.0).reshape(2, 2, 3) / 7
    inside = Preprocessing(mean, np.array([1.0, 2.0, 3.0]))
    augmentation = Augmentation(8, scale=(10, 12), fast_decode=True)
    decoding = Decoding(background=(1, 2, 3), exif_orientation=False)
    facts = describe_preprocessing(
        network(preprocessing=inside), augmentation, ImageLimits(pixels=9), decoding
    )
    assert facts["mean"] == [0.6429, 0.7857, 0.9286] and facts["std"] == [1, 2, 3]
    assert (facts["resize"], facts["shorter_side_before_crop"]) == ("bilinear", 10)
    assert (facts["background"], facts["exif_orientation"]) == ((1, 2, 3), False)
    assert (facts["side"], facts["free_size"], facts["limits"]["pixels"]) == (8, False, 9)
    write_card(tmp_path, "x", network(), LABELS, facts, {}, Origin("run", "pets", 0, 0.12345))
    card = (tmp_path / "README.md").read_text()
    assert "subtracts [0.6429, 0.7857, 0.9286] and divides by [1.0, 2.0, 3.0]." in card
    assert "trained on | pets, 0 epochs |" in card and "images | 12.35 % |" in card
    assert "RGB in 0..255, 8 x 8. NaN and values" in card and "WebP files need a server" in card
    assert "Features are those of" not in card
    free = network(variable_size=True)
    facts = describe_preprocessing(free, Augmentation(8), ImageLimits(), Decoding())
    assert (facts["mean"], facts["std"], facts["resize"]) == (None, None, "bilinear, antialiased")
    without = network(preprocessing=Preprocessing(np.ones(3), None))
    assert (
        describe_preprocessing(without, Augmentation(8), ImageLimits(), Decoding())["std"] is None
    )
    write_card(tmp_path, "x", free, ["a"] * 11, facts, {}, Origin())
    card = (tmp_path / "README.md").read_text()
    assert "The network itself does what its first layers do." in card
    assert "RGB in 0..255, any height and width from 8 on." in card
    assert "written by cnnkit from memory." in card
    assert f"11: {'a, ' * 10}... |" in card
    assert "trained on | not recorded |" in card and "images | not measured |" in card


def test_ten_classes_are_named_without_dots():
    facts = facts_table(network(), list("abcdefghij"), Origin(epochs=1))
    assert "| classes | 10: a, b, c, d, e, f, g, h, i, j |" in facts
    text = preprocessing_text(
        network(), describe_preprocessing(network(), Augmentation(8), ImageLimits(), Decoding()),
        served=False,
    )  # fmt: skip
    assert not [line for line in text if "WebP" in line or "refused" in line]


def test_names_are_shown_by_the_card_and_make_no_markup(tmp_path):
    name = (
        "a|b\n# c <img src=x onerror=alert(1)> [d](http://e) `f` *g* _h_ $i$ &amp; www.j.k \u202el"
    )
    model = SimpleNamespace(name=name, count_params=lambda: 7)
    odd = network(model=model, features_layer="fc`7|")
    preprocessing = {"mean": None, "std": None, "shorter_side_before_crop": 8, "resize": "r"}
    preprocessing |= {"background": None, "exif_orientation": True, "limits": {"pixels": 9}}
    write_card(tmp_path, "x", odd, [name], preprocessing, {}, Origin(name, name))
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
