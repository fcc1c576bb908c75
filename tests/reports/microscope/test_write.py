"""The microscope: pages that load nothing from outside, show what Keras computes, and resume."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnkit import write_microscope
from cnnkit.data import Augmentation, batches, load_dataset
from cnnkit.errors import UsageError, escape_controls
from cnnkit.reports.microscope import pictures, site_writer
from cnnkit.reports.microscope import write as write_module
from cnnkit.reports.microscope.page import POLICY
from cnnkit.reports.microscope.site_folder import layer_folders
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
    assert len(pages) == 1 + 2 + 5 + 6 + 1 + len(LABELS)
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
    maps = keras.Model(model.input, model.get_layer("conv2").output)(images, training=False).numpy()
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


def test_one_view_of_a_layer_is_chosen_at_a_time(site):
    page = (site / "conv1" / "index.html").read_text()
    inputs = re.findall(r'<input[^>]* name="view"[^>]*>', page)
    assert len(inputs) == 3
    assert all('type="radio"' in one for one in inputs)
    assert ["checked" in one for one in inputs].count(True) == 1


def _is_number(text):
    try:
        return np.isfinite(float(text))
    except ValueError:
        return False


def test_class_pages_show_what_keras_predicts(site, run):
    model = keras.models.load_model(run.model_file)
    split = load_dataset(run.config.dataset, seed=run.config.seed).splits["test"]
    [batch] = batches(split, augmentation=Augmentation(SIZE), batch_size=len(split))
    predicted = model(batch["images"].numpy(), training=False).numpy().argmax(axis=1)
    names = [escape_controls(one) for one in sorted(LABELS)]
    assert 0 < (predicted == split.labels).sum() < len(split)
    for number, name in enumerate(names):
        page = Page((site / "classes" / f"class-{number:04d}.html").read_text())
        text = "|".join(page.texts)
        wrong = (split.labels == number) & (predicted != number)
        assert f"3 images of this class were searched; {wrong.sum()} (" in text
        mistakes = [split.names[one] for one in np.flatnonzero(wrong)]
        shown = [one for one in page.texts if one.startswith("test/")]
        assert shown == [escape_controls(one) for one in mistakes]
        for title, others in (
            ("taken for", predicted[wrong]),
            ("taken for it", split.labels[(split.labels != number) & (predicted == number)]),
        ):
            if not len(others):
                assert f"{title}: none" in page.texts
                continue
            counts = np.bincount(others)
            at = page.texts.index(title)
            assert page.texts[at + 2 : at + 4] == [names[counts.argmax()], str(counts.max())]
        assert page.texts.count(name) >= 2


def test_other_classes_than_those_of_the_images_have_no_mistakes(tmp_path, run):
    page = write_microscope(
        keras.models.load_model(run.model_file), "digits", tmp_path / "site",
        layers=["conv1"], units=[0], sample=20,
    )  # fmt: skip
    text = (page.parent / "classes" / "class-0003.html").read_text()
    assert ("Confusions" in text, "were searched." in text) == (False, True)


def test_rules_show_the_gradient_that_a_tape_computes(run, tmp_path):
    site = tmp_path / "site"
    write_microscope(run, run.config.dataset, site, layers=["conv2"], rules=["guided", "gradient"])
    model = keras.models.load_model(run.model_file)
    split = load_dataset(run.config.dataset, seed=run.config.seed).splits["test"]
    [batch] = batches(split, augmentation=Augmentation(SIZE), batch_size=len(split))
    images = tf.constant(batch["images"])
    inner = keras.Model(model.input, model.get_layer("conv2").output)
    with tf.GradientTape() as tape:
        tape.watch(images)
        strongest = tf.reduce_max(inner(images), axis=(1, 2))
    gradients = tape.batch_jacobian(strongest, images).numpy()
    maps, compared = inner(images).numpy(), 0
    for unit in np.flatnonzero(strongest.numpy().max(axis=0) > 0):
        image = strongest[:, unit].numpy().argmax()
        row, column = np.unravel_index(maps[image, ..., unit].argmax(), maps.shape[1:3])
        field = gradients[image, unit, 2 * row : 2 * row + 8, 2 * column : 2 * column + 8]
        largest = np.quantile(np.abs(field[field != 0]), 0.995)
        expected = 255 * np.clip(0.5 + field / (2 * largest), 0, 1)
        shown = tf.io.decode_png((site / "conv2" / f"unit-{unit:04d}-gradient.png").read_bytes())
        np.testing.assert_allclose(shown.numpy()[:8, :8], expected, atol=1)
        page = Page((site / "conv2" / f"unit-{unit:04d}.html").read_text())
        assert {"guided rule", "gradient rule"} <= set(page.texts)
        compared += 1
    assert compared > 2


def test_image_pages_show_what_keras_computes(run, tmp_path):
    site = tmp_path / "site"
    write_microscope(run, run.config.dataset, site, images=2)
    model = keras.models.load_model(run.model_file)
    split = load_dataset(run.config.dataset, seed=run.config.seed).splits["test"]
    [batch] = batches(split, augmentation=Augmentation(SIZE), batch_size=len(split))
    images = batch["images"].numpy()
    inner = keras.Model(model.input, [model.get_layer(one).output for one in ("conv1", "conv2")])
    largest = [one.numpy().max(axis=(1, 2)) for one in inner(images, training=False)]
    expected = model(images, training=False).numpy()
    names = [escape_controls(one) for one in sorted(LABELS)]
    for number in (0, len(split) - 1):
        page = Page((site / "images" / f"image-{number:06d}.html").read_text())
        best = np.argsort(-expected[number])[:5]
        at = page.texts.index("probability") + 1
        shown = page.texts[at : at + 10]
        assert shown[::2] == [names[one] for one in best]
        assert shown[1::2] == [f"{expected[number, one]:.1%}" for one in best]
        [data] = [json.loads(value) for _, name, value in page.attributes if name == "data-places"]
        assert data["target"] == names[best[0]]
        assert (data["square"], len(data["places"])) == ([2, 2], 121)
        covered = np.repeat(images[number][None], 121, axis=0)
        for one, (row, column, _, _) in zip(covered, data["places"], strict=True):
            one[row : row + 2, column : column + 2] = 128
        outputs = model(covered, training=False).numpy()
        assert len({(row, column) for row, column, _, _ in data["places"]}) == 121
        shown = np.array([one[2] for one in data["places"]])
        np.testing.assert_allclose(shown, outputs[:, best[0]], atol=2e-4)
        # The colors go from the smallest to the largest probability, and their numbers are beside.
        colors = tf.io.decode_image(
            next((site / "images").glob(f"image-{number:06d}-probability.*")).read_bytes()
        ).numpy()
        grid = outputs[:, best[0]].reshape(11, 11)
        for place, is_bright in ((grid.argmin(), False), (grid.argmax(), True)):
            row, column = (
                int((one + 0.5) * side / 11)
                for one, side in zip(divmod(int(place), 11), colors.shape, strict=False)
            )
            assert (colors[row, column].mean() > 150) == is_bright
        digits = max(1, int(np.ceil(1 - np.log10(100 * np.ptp(grid)))))
        scale = [f"{100 * one:.{digits}f}%" for one in (grid.min(), grid.max())]
        assert set(scale) <= set(page.texts), (scale, page.texts)
        labels = [data["names"][str(one[3])] for one in data["places"]]
        assert labels == [names[one] for one in outputs.argmax(axis=1)]
        for layer, values in zip(("conv1", "conv2"), largest, strict=True):
            address = f"../{layer}/unit-{values[number].argmax():04d}.html"
            assert address in page.addresses()
        last = np.maximum(largest[1], 0)
        cosines = last @ last[number] / np.linalg.norm(last, axis=1) / np.linalg.norm(last[number])
        order = [one for one in np.argsort(-cosines, kind="stable") if one != number][:6]
        shown = [one for one in page.texts if one.startswith("test/")][-6:]
        assert shown == [escape_controls(split.names[one]) for one in order]
        assert {"saliency, learned weights", "gradcam, learned weights"} <= set(page.texts)
    for file in site.rglob("*.html"):
        for address in Page(file.read_text()).addresses():
            assert (file.parent / address).is_file(), (file, address)


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

    original = site_writer.project_images
    monkeypatch.setattr(site_writer, "project_images", interrupted)
    monkeypatch.setattr(site_writer, "UNITS_AT_ONCE", 1)
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


def test_the_same_weights_with_other_settings_begin_anew(run, tmp_path, monkeypatch):
    first = keras.models.load_model(run.model_file)

    def darker(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.Rescaling):
            config["scale"] = 1 / 64
        return type(layer).from_config(config)

    second = keras.models.clone_model(first, clone_function=darker)
    second.set_weights(first.get_weights())
    assert second.name == first.name
    projected = []

    def interrupted(graph, images, found, units, *rest):
        projected.extend(units)
        if len(projected) == 4:
            raise KeyboardInterrupt
        return write_images(graph, images, found, units, *rest)

    write_images = site_writer.project_images
    monkeypatch.setattr(site_writer, "project_images", interrupted)
    monkeypatch.setattr(site_writer, "UNITS_AT_ONCE", 1)
    arguments = {"layers": ["conv1"], "run": run}
    with pytest.raises(KeyboardInterrupt):
        write_microscope(first, run.config.dataset, tmp_path / "site", **arguments)
    write_microscope(second, run.config.dataset, tmp_path / "site", **arguments)
    assert projected == [0, 1, 2, 3, 0, 1, 2, 3, 4]
    monkeypatch.setattr(site_writer, "project_images", write_images)
    write_microscope(second, run.config.dataset, tmp_path / "whole", **arguments)
    for file in (tmp_path / "whole" / "conv1").iterdir():
        assert (tmp_path / "site" / "conv1" / file.name).read_bytes() == file.read_bytes()


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
    with pytest.raises(UsageError, match="`images` must be"):
        write_microscope(run, dataset, tmp_path / "new", images=-1)
    with pytest.raises(UsageError, match="rules"):
        write_microscope(run, dataset, tmp_path / "new", rules=["deconvnet"])
    assert not Path(tmp_path / "new").exists()


def headings(file):
    return re.findall(r"<h[23]>([^<]*)</h[23]>", file.read_text())


def test_the_parts_of_each_page_and_the_way_up(site, pages):
    units = ["Where", "Classes that excite it", "Activations", "The images"]
    for folder in ("conv1", "conv2"):
        for page in (site / folder).glob("unit-*.html"):
            assert headings(page) == ([] if "Dead" in page.read_text() else units), page
    for page in (site / "classes").glob("class-*.html"):
        first, *others = headings(page)
        assert first == "Units that it excites most"
        layers = [one.partition(":")[0] for one in others if one.startswith("conv")]
        # The upper layer first, and those that have such units.
        assert layers == sorted(layers, reverse=True)
        assert others[len(layers) :] == ["Confusions", "Mistakes"][: len(others) - len(layers)]
        has_mistakes = 'class="units"' in page.read_text().rpartition("Confusions")[2]
        assert ("Mistakes" in others) == has_mistakes
    # The first and the last class have one neighbor, and the layers have the other.
    ups = {file.relative_to(site).as_posix(): relations(page) for file, page in pages.items()}
    assert ups["classes/class-0000.html"] == ["up", "next"]
    assert ups["classes/class-0003.html"] == ["up", "prev", "next"]
    assert ups["classes/class-0006.html"] == ["up", "prev"]
    assert ups["conv1/unit-0000.html"] == ["up", "next"]
    assert ups["conv2/unit-0005.html"] == ["up", "prev"]
    assert (ups["conv1/index.html"], ups["conv2/index.html"]) == (["up", "next"], ["up", "prev"])
    assert ups["classes/index.html"] == ["up"]


def relations(page):
    return [value for tag, name, value in page.attributes if name == "rel" and tag == "a"]


def test_pictures_of_kernels_are_those_of_the_first_layer(site, run):
    """Gray is 0, and the largest weight is black or white."""
    kernels = keras.models.load_model(run.model_file).get_layer("conv1").get_weights()[0]
    assert len(list((site / "conv1").glob("*-kernel.png"))) == 5
    assert not list((site / "conv2").glob("*-kernel.png"))
    for unit in range(5):
        shown = tf.io.decode_png((site / "conv1" / f"unit-{unit:04d}-kernel.png").read_bytes())
        kernel = kernels[..., unit]
        expected = 255 * (0.5 + kernel / (2 * np.abs(kernel).max()))
        np.testing.assert_allclose(shown, expected, atol=1)


def test_folders_of_layers_have_names_of_their_own():
    """Names that a file system or the site has a use for are replaced by numbers."""
    layers = ["conv1", "Conv1", "a/b", "classes", "layer-9", "x" * 100, "x" * 101, "end.", "-a"]
    assert list(layer_folders(layers).values()) == [
        "conv1", "layer-2", "layer-3", "layer-4", "layer-5", "x" * 100, "layer-7", "layer-8",
        "layer-9",
    ]  # fmt: skip


def test_images_are_chosen_evenly():
    evenly = [write_module._evenly(10, most).tolist() for most in (1, 2, 4, 10, 20)]
    assert evenly == [[0], [0, 9], [0, 3, 6, 9], list(range(10)), list(range(10))]
    split = load_dataset("digits").splits["test"]
    assert write_module._spread(split, None) is write_module._spread(split, 359) is split
    assert write_module._spread(split, 358).names == split.names[:179] + split.names[180:]


@pytest.mark.parametrize(
    ("value", "text"),
    [(["a", "b"], "a, b"), (12345, "12,345"), (None, "None"), ("x", "x"), ([1], "1")],
)
def test_facts_are_written_as_words(value, text):
    assert write_module._words(value) == text


def test_units_that_share_images_are_projected_together():
    found = SimpleNamespace(
        images=np.array([[0, 1], [1, 2], [3, 4], [4, 9]]),
        values=np.array([[2, 1], [2, 1], [2, 1], [2, 0]]),
    )
    layer = SimpleNamespace(found=found)
    for most, expected in ((3, [[0, 1], [2, 3]]), (5, [[0, 1, 2, 3]]), (1, [[0], [1], [2], [3]])):
        assert list(site_writer._units_of_few_images(layer, [0, 1, 2, 3], most)) == expected


def test_the_progress_is_counted(run, tmp_path):
    work, counted = [], {}

    class Counted:
        def __init__(self, total, name):
            work.append((total, name))
            self.name = name

        def __enter__(self):
            return lambda count: counted.update({self.name: counted.get(self.name, 0) + count})

        def __exit__(self, *_):
            pass

    options = {"layers": ["conv2"], "units": [0, 1, 2], "sample": 5, "images": 2}
    write_microscope(run, run.config.dataset, tmp_path / "site", progress=Counted, **options)
    assert [name for _, name in work] == ["searching", "projecting", "explaining"]
    assert {name: total for total, name in work} == counted
    assert (counted["searching"], counted["explaining"]) == (5, 2)
