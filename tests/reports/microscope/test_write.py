"""The microscope: pages that load nothing from outside, show what Keras computes, and resume."""

import json
from html.parser import HTMLParser
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnkit import write_microscope
from cnnkit.data import Augmentation, batches, load_dataset
from cnnkit.errors import UsageError, escape_controls
from cnnkit.reports.microscope import pictures, write
from cnnkit.reports.microscope.page import POLICY
from cnnkit.run_folder import RunFolder
from tests.helpers.evaluation_networks import SIZE, write_folder, write_run

pytestmark = pytest.mark.usefixtures("unoptimized")

# Names as a stranger would choose them; folders cannot have a slash.
LABELS = ("<script>alert(1)", '"onload="alert(1)', "'c", "&amp;d", "e", "f\u202e", "g")


class Page(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.attributes, self.texts, self.tags = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *one) for one in attrs]

    def handle_data(self, data):
        self.texts.append(data)

    def addresses(self):
        return [value for _, name, value in self.attributes if name in ("href", "src")]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("microscope")
    dataset = write_folder(root / "seven", LABELS)
    return RunFolder(write_run(root / "<b>run", 3, dataset, labels=sorted(LABELS)))


@pytest.fixture(scope="module")
def site(run, tmp_path_factory):
    output = tmp_path_factory.mktemp("sites") / "site"
    page = write_microscope(run, run.config.dataset, output)
    assert page == output / "index.html"
    return output


@pytest.fixture(scope="module")
def pages(site):
    return {file: Page(file.read_text()) for file in sorted(site.rglob("*.html"))}


def test_every_address_is_a_file_of_the_site(site, pages):
    assert len(pages) == 1 + 2 + 5 + 6
    for file, page in pages.items():
        for address in page.addresses():
            target = (file.parent / address).resolve()
            assert target.is_relative_to(site.resolve())
            assert target.is_file(), (file, address)
    linked = {
        (file.parent / address).resolve()
        for file, page in pages.items()
        for address in page.addresses()
    }
    # Of the files that no page links, the script reads the first, and nobody the second.
    others = {one.name for one in site.rglob("*") if one.is_file() and one.resolve() not in linked}
    assert others == {"units.js", "microscope.json"}


def test_pages_run_one_script_and_hold_names_as_texts(pages):
    for page in pages.values():
        assert page.tags.count("script") == 1
        assert not {"style", "iframe", "object", "base", "form"} & set(page.tags)
        assert not [name for _, name, _ in page.attributes if name.startswith("on")]
        assert not [name for _, name, _ in page.attributes if name == "style"]
        assert ("meta", "content", POLICY) in page.attributes
        for tag, name, value in page.attributes:
            assert tag != "img" or name != "alt" or value
    texts = {text for page in pages.values() for text in page.texts}
    assert {"<script>alert(1)", '"onload="alert(1)', "&amp;d", r"f\u202e", "<b>run"} <= texts
    assert "default-src 'none'" in POLICY
    assert "http" not in POLICY


def test_a_unit_page_shows_what_keras_computes(site, run):
    model = keras.models.load_model(run.model_file)
    split = load_dataset(run.config.dataset, seed=run.config.seed).splits["test"]
    [batch] = batches(split, augmentation=Augmentation(SIZE), batch_size=len(split))
    images = batch["images"].numpy()
    maps = keras.Model(model.input, model.get_layer("conv2").output).predict(images, verbose=0)
    largest = maps.max(axis=(1, 2))
    searched = json.loads((site / "microscope.json").read_text())
    assert (searched["images"], searched["layers"]) == (21, ["conv1", "conv2"])
    for unit in range(6):
        page = Page((site / "conv2" / f"unit-{unit:04d}.html").read_text())
        text = "|".join(page.texts)
        fired = (largest[:, unit] > 0).mean()
        if not fired:
            assert "Dead" in text
            continue
        assert f"It fired for {fired:.1%} of 21 images" in text
        best = np.argsort(-largest[:, unit])[:9]
        names = [escape_controls(split.names[one]) for one in best if largest[one, unit] > 0]
        assert [one for one in page.texts if one.startswith("test/")] == names
        means = [largest[split.labels == c, unit].clip(0).mean() for c in range(len(LABELS))]
        assert f"{max(means):.3g}" in {f"{float(one):.3g}" for one in page.texts if _is_number(one)}


def _is_number(text):
    try:
        return np.isfinite(float(text))
    except ValueError:
        return False


def test_units_are_small_and_their_pages_lead_on(site):
    for folder in ("conv1", "conv2"):
        for page in (site / folder).glob("unit-*.html"):
            files = list((site / folder).glob(f"{page.stem}*"))
            assert sum(one.stat().st_size for one in files) <= 30_000
    page = Page((site / "conv1" / "unit-0002.html").read_text())
    relations = [value for tag, name, value in page.attributes if name == "rel" and tag == "a"]
    assert relations == ["up", "prev", "next"]
    assert "unit-0001.html" in page.addresses()
    assert "unit-0003.html" in page.addresses()


def test_noise_fits_into_a_unit():
    noise = np.random.default_rng(0).integers(0, 256, (400, 800, 3), np.uint8)
    ending, data = pictures._encode(noise, pictures.MOST_BYTES)
    assert ending == ".jpg"
    assert len(data) <= pictures.MOST_BYTES
    height, width, _ = tf.io.decode_jpeg(data).shape
    assert (abs(width - 2 * height) <= 2, width < 800) == (True, True)


def test_an_interrupted_site_goes_on(run, tmp_path, monkeypatch):
    projected, last = [], [4]

    def interrupted(graph, images, found, units, *rest):
        projected.extend((found.layer, unit) for unit in units)
        if len(projected) == last[0]:
            raise KeyboardInterrupt
        return original(graph, images, found, units, *rest)

    original = write.project_images
    monkeypatch.setattr(write, "project_images", interrupted)
    monkeypatch.setattr(write, "UNITS_AT_ONCE", 1)
    arguments = (run, run.config.dataset, tmp_path / "site")
    with pytest.raises(KeyboardInterrupt):
        write_microscope(*arguments)
    assert not (tmp_path / "site").exists()
    write_microscope(*arguments)
    # The unit that was interrupted is projected again, those before it are not.
    assert projected.count(projected[3]) == 2
    assert len(set(projected)) == len(projected) - 1
    assert [one.name for one in tmp_path.iterdir()] == ["site"]
    # Another choice begins anew.
    last[0] = len(projected) + 2
    with pytest.raises(KeyboardInterrupt):
        write_microscope(*arguments, overwrite=True)
    assert (tmp_path / "site" / "conv1" / "index.html").exists()
    # A dataset without a test split is split as it was for the training.
    spec = f"{run.config.dataset}/train"
    write_microscope(run, spec, tmp_path / "site", units=[1], layers=["conv2"], overwrite=True)
    assert projected[last[0] :] == [("conv2", 1)]
    assert [one.name for one in tmp_path.iterdir()] == ["site"]
    fingerprint = json.loads((tmp_path / "site" / "microscope.json").read_text())["fingerprint"]
    assert fingerprint == load_dataset(spec, seed=run.config.seed).fingerprint
    assert sorted(one.name for one in (tmp_path / "site" / "conv2").glob("*.html")) == [
        "index.html", "unit-0001.html",
    ]  # fmt: skip
    assert not (tmp_path / "site" / "conv1").exists()


def test_nothing_of_others_is_replaced(run, site, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    dataset = run.config.dataset
    with pytest.raises(UsageError, match="new folder, or one that a site is in"):
        write_microscope(run, dataset, tmp_path, overwrite=True)
    assert [one.name for one in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(UsageError, match="`overwrite=True` replaces it"):
        write_microscope(run, dataset, site)
    with pytest.raises(UsageError, match="no layer|conv9"):
        write_microscope(run, dataset, tmp_path / "new", layers=["conv9"])
    with pytest.raises(UsageError, match="unit"):
        write_microscope(run, dataset, tmp_path / "new", layers=["conv1"], units=[5])
    assert not Path(tmp_path / "new").exists()
