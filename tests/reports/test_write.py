"""Reports of runs: one page without scripts and without other files, whatever the names are."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import keras
import numpy as np
import pytest

from cnnkit import write_report
from cnnkit._html.elements import to_html
from cnnkit.data import load_dataset
from cnnkit.errors import RunError, UsageError
from cnnkit.reports import inside, settings
from cnnkit.reports.page_file import check_page
from cnnkit.reports.results import MAX_CELLS, errors_section
from cnnkit.run_folder import ENVIRONMENT, RunFolder
from cnnkit.visualize import EXPLANATION_METHODS, Attribution
from tests.helpers.evaluation_networks import write_folder, write_run

pytestmark = pytest.mark.usefixtures("unoptimized")

# Names as a stranger would choose them; folders cannot have a slash.
LABELS = ("<script>alert(1)", '"onload="alert(1)', "'c", "&amp;d", "e", "f\u202e", "g")
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """A page as a browser reads it; fails where tags do not match."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *one) for one in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def values(self, name):
        return [value for _, key, value in self.attributes if key == name]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    dataset = write_folder(root / "seven", LABELS)
    # A folder's classes are sorted.
    run = RunFolder(write_run(root / "<b>run", 3, dataset, labels=sorted(LABELS)))
    line = {"epoch": 1, "loss": 1.0, "accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.25,
            "learning_rate": 0.1, "images_per_second": 50.0}  # fmt: skip
    run.metrics_file.write_text(f"{json.dumps(line)}\n")
    facts = {
        "command": "cnnkit train </pre><script>",
        "deviations": ["<i>none"],
        "devices": ["CPU"],
    }
    (run.path / ENVIRONMENT).write_text(json.dumps(facts))
    return run


@pytest.fixture(scope="module")
def page(run):
    """The page, its text and its file."""
    work = []

    class Counted:
        def __init__(self, images, name):
            work.append((images, name))

        def __enter__(self):
            return lambda images: None

        def __exit__(self, *_):
            pass

    file = write_report(run, progress=Counted)
    assert work == [(21, "evaluating"), (21, "searching units")]
    assert file == run.path / "report" / "index.html"
    html = file.read_text()
    found = Page()
    found.feed(html)
    found.close()
    assert found.open == []
    return found, html, file


def test_the_page_loads_nothing_and_runs_nothing(page):
    found, html, _ = page
    forbidden = {"script", "iframe", "object", "embed", "link", "base", "form"}
    assert not forbidden & set(found.tags)
    assert not [name for _, name, _ in found.attributes if name.startswith("on")]
    assert not found.values("style")
    assert found.values("src")
    assert all(
        re.match(r"data:image/(png|jpeg|svg\+xml);base64,", one) for one in found.values("src")
    )
    anchors = set(found.values("id"))
    assert found.values("href")
    assert {one.removeprefix("#") for one in found.values("href")} <= anchors
    [policy] = [one for one in found.values("content") if "default-src" in one]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    style = html.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy
    assert html.index("Content-Security-Policy") < html.index("<title>")


def test_the_page_shows_what_a_reader_asks_for(page, run):
    found, _, _ = page
    text = "|".join(found.texts)
    titles = ["Training", "Confusion matrix", "Calibration", "Worst mistakes",
              "First-layer filters", "What units respond to", "Configuration",
              "How to reproduce it"]  # fmt: skip
    assert [one for one in found.texts if one in titles] == titles * 2  # in the bar, as headings
    results = json.loads(next(run.path.glob("evaluations/*.json")).read_text())
    assert f"{results['top1_error']:.1%} of 21 test images wrong" in text
    assert (
        f"The expected calibration error (Guo et al. 2017) is {results['calibration']['error']:.1%}"
        in text
    )
    confidence = sum(one["images"] * (one["confidence"] or 0) for one in
                     results["calibration"]["bins"]) / 21  # fmt: skip
    gap = confidence - (1 - results["top1_error"])
    assert f"it is too {'confident' if gap > 0 else 'careful'} by {abs(gap):.1%}" in text
    for number, one in enumerate(results["mistakes"], 1):
        assert f"{number}. {one['name']}".replace("\u202e", r"\u202e") in text
    assert text.count("what speaks for") + text.count("everywhere 0") == 2 * len(
        results["mistakes"]
    )
    assert "cnnkit train </pre><script>" in text
    assert "<i>none" in text
    assert "CPU" in found.texts
    assert found.tags.count("img") == 3 * len(results["mistakes"]) + 2 + 1 + 2
    counts = [int(one) for one in found.texts if one.isdigit()]
    assert sum(counts) >= 21


def test_a_number_of_the_matrix_leads_to_a_mistake(page, run):
    found, html, _ = page
    results = json.loads(next(run.path.glob("evaluations/*.json")).read_text())
    first = results["mistakes"][0]
    matrix = html.split('class="matrix"')[1].split("</table>")[0]
    assert 'href="#mistake-1"' in matrix
    # Rows are classes, and columns are answers.
    rows = [re.findall(r">([\d·]+)<", row) for row in matrix.split("<tr>")[2:]]
    used = sorted({number for row in results["confusion"] for number in row[:2]})
    assert len(re.findall(r'<td class="s[0-9]">', matrix)) == len(used) ** 2
    for label, answer, images in results["confusion"]:
        assert rows[used.index(label)][used.index(answer)] == str(images)
    article = html.split('id="mistake-1"')[1].split("</article>")[0]
    plain = Page()
    plain.feed(f"<p>{article.split('>', 1)[1]}</p>")
    assert plain.texts[0] == f"1. {first['name']}".replace("\u202e", r"\u202e")
    assert plain.values("value") == [f"{value:.4f}" for _, value in first["top"]] + (
        [] if first["label"] in dict(first["top"]) else [f"{first['probability']:.4f}"]
    )


def test_a_page_is_replaced_only_if_that_is_said(page, run, tmp_path):
    _, _, file = page
    before = file.stat().st_mtime_ns
    with pytest.raises(
        UsageError, match="`output` must be a new file.* `overwrite=True` replaces it"
    ):
        write_report(run.path)
    assert file.stat().st_mtime_ns == before
    assert check_page(run, overwrite=True) == file
    assert check_page(run, tmp_path / "new") == tmp_path / "new" / "index.html"
    assert check_page(run, tmp_path / "deep" / "a.HTML") == tmp_path / "deep" / "a.HTML"
    (tmp_path / "file").touch()
    (tmp_path / "b.html").mkdir()
    for wrong in (tmp_path / "file" / "x", tmp_path / "b.html"):
        with pytest.raises(UsageError, match="`output` must be a file .html, or a folder"):
            check_page(run, wrong)


def test_an_unknown_method_is_refused_at_once(run, tmp_path):
    with pytest.raises(UsageError, match="Unknown method 'gradcan'.*Did you mean gradcam"):
        write_report(run, tmp_path / "x", explain="gradcan")
    assert not (tmp_path / "x").exists()


def test_a_run_that_is_not_finished_is_refused_at_once(run, tmp_path, monkeypatch):
    other = RunFolder(tmp_path / "other")
    other.create(run.config, run.class_names, {})
    # Before the dataset is opened.
    monkeypatch.setattr("cnnkit.reports.write.held_out_images", lambda *_: 1 / 0)
    with pytest.raises(RunError, match="has no model yet"):
        write_report(other)


def test_many_classes_are_a_picture_and_the_worst_ones():
    classes = [
        {"label": f"c{i:02d}", "images": 100, "top1_error": i / 100} for i in range(MAX_CELLS + 1)
    ]
    confusion = [[i, (i + 1) % len(classes), i] for i in range(1, len(classes))]
    matrix = np.diag(np.arange(100, 100 - len(classes), -1))
    for label, answer, images in confusion:
        matrix[label, answer] = images
    # Results list right answers too: no class is taken for itself.
    confusion += [[i, i, 100 - i] for i in range(len(classes))]
    results = {"classes": classes, "confusion": confusion, "mistakes": []}
    html = "".join(to_html(one) for one in errors_section(results, matrix).content)
    assert 'class="matrix"' not in html
    assert html.count('src="data:image/png;base64,') == 1
    pairs, by_class = html.split("The 20 classes with the largest errors")
    found = re.findall(r">(c\d\d)<.*?>(c\d\d)<.*?>(\d+ of 100)<", pairs, re.DOTALL)
    assert found == [
        (f"c{i}", f"c{(i + 1) % len(classes):02d}", f"{i} of 100") for i in range(40, 30, -1)
    ]
    assert re.findall(r">(c\d\d)<", by_class) == [f"c{i}" for i in range(40, 20, -1)]
    assert "c40</t" in by_class
    assert re.findall(r"(c\d\d) \(\d+\)", by_class) == [
        f"c{(i + 1) % len(classes):02d}" for i in range(40, 20, -1)
    ]


def test_at_most_two_thousand_images_are_searched(run, monkeypatch):

    split = load_dataset("digits").splits["test"]
    assert inside.searched_images(split) is split
    monkeypatch.setattr(inside, "MAX_SEARCHED", 5)
    few = inside.searched_images(split)
    np.testing.assert_array_equal(few.labels, split.labels[[0, 90, 179, 268, 358]])


def test_the_answer_is_explained_before_the_class(monkeypatch):
    def explain(model, crops, targets, method):
        return [Attribution(method, i, one, 0.0, crops[i, ..., 0] + one) for i, one in
                enumerate(targets)]  # fmt: skip

    monkeypatch.setattr(inside, "explain_class", explain)
    mistakes = [{"label": "a", "top": [["c", 0.9]]}, {"label": "b", "top": [["a", 0.9]]}]
    crops = np.stack([np.full((1, 1, 3), 10.0), np.full((1, 1, 3), 20.0)])
    found, note = inside._explain(None, crops, mistakes, ["a", "b", "c"], "deconvnet")
    assert [[one.map.item() for one in pair] for pair in found] == [[12, 10], [20, 21]]
    assert {one.method for pair in found for one in pair} == {"deconvnet"}
    assert note.endswith("The deconvnet (Zeiler & Fergus 2013) shows the pixels that speak for a "
                         "class: gray is 0.")  # fmt: skip
    _, note = inside._explain(None, crops, mistakes, ["a", "b", "c"], "occlusion")
    assert note.endswith("colors the places that speak for a class: yellow is most.")
    assert set(inside.METHOD_NAMES) == set(EXPLANATION_METHODS)


def test_a_network_that_cannot_be_explained_is_told(monkeypatch):
    def refuse(*_):
        raise UsageError("No maps")

    monkeypatch.setattr(inside, "explain_class", refuse)
    mistakes = [{"label": "a", "top": [["a", 0.9]]}]
    found, note = inside._explain(None, np.zeros((1, 1, 1, 3)), mistakes, ["a"], "gradcam")
    assert found == []
    assert note == "The answers of this network cannot be explained: No maps."


def test_the_command_of_the_training_has_no_path_of_the_machine():
    for recorded, expected in (
        ("/home/me/cnnkit/__main__.py train --epochs 8", "cnnkit train --epochs 8"),
        ("/usr/bin/cnnkit-train --recipe demo", "cnnkit-train --recipe demo"),
        (None, None),
        ("", None),
    ):
        assert settings._command(recorded) == expected


def test_a_layer_in_the_middle_and_the_last_one_are_searched():
    def network(*names):
        inputs = x = keras.Input((8, 8, 3))
        for name in names:
            x = keras.layers.Conv2D(2, 1, name=name)(x)
        return keras.Model(inputs, keras.layers.Activation("relu")(x))

    for names, expected in (("a", "a"), ("ab", "ab"), ("abcde", "ce")):
        assert inside.middle_and_last_convolution(network(*names)) == list(expected)
    section = inside.units_section(network(), load_dataset("digits").splits["test"], 8)
    assert "must have a convolution" in section.content[0].text
