"""Every option of a command reaches the function that does the work."""

import importlib
import inspect
import json
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from cnnkit.cli import load_network as load_network_module
from cnnkit.cli.console import progress_bar, request_bar
from cnnkit.cli.main import main
from cnnkit.cli.training_progress import TerminalProgress
from cnnkit.data import Augmentation, Decoding
from cnnkit.export import ImageLimits
from cnnkit.features import FeatureSpec
from tests.helpers.run_folders import write_metrics_run

# A network of any size, of which nothing is checked before it is built.
RANDOM = "random --model alexnet --model-option include_top=false"
BLUE = Decoding(background=(0, 0, 255), exif_orientation=False)


class Reached(Exception):
    """The function was called."""


@pytest.fixture(scope="module")
def network():
    """The network that is built: it has layers of the names that the tests use."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 5, strides=2, activation="relu", name="conv1")(inputs)
    x = layers.Conv2D(4, 3, activation="relu", name="conv2")(x)
    x = layers.Dense(3, activation="softmax", name="fc8")(layers.Flatten()(x))
    return keras.Model(inputs, x, name="small")


@pytest.fixture
def places(tmp_path):
    Image.new("RGB", (40, 40), (9, 8, 7)).save(tmp_path / "image.png")
    entry = {"image": "image.png", "parts": {"eye": [2, 2, 9, 9]}}
    (tmp_path / "parts.json").write_text(json.dumps([entry, entry]))
    (tmp_path / "labels.txt").write_text("cat\ndog\nfox\n")
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "index.json").touch()
    np.savez(tmp_path / "weights.npz", a=np.zeros(1))
    run = write_metrics_run(tmp_path / "run", [0.5])
    run.model_file.write_bytes(b"")
    names = {name: str(tmp_path / name) for name in ("new", "features", "run")}
    files = {"image": "image.png", "parts": "parts.json", "labels": "labels.txt"}
    files["npz"] = "weights.npz"
    return names | {name: str(tmp_path / file) for name, file in files.items()} | {
        "tmp": str(tmp_path)
    }  # fmt: skip


@pytest.fixture
def reach(network, places, monkeypatch, capsys):
    """Returns a function that runs a command and returns the arguments of the function called."""
    built = []

    def build(word, model, options, seed):
        built.append((word, model, options, seed))
        return network

    monkeypatch.setattr(load_network_module, "_fresh_network", build)

    def call(line, target, **answers):
        found = []
        module, _, name = target.rpartition(".")
        signature = inspect.signature(getattr(importlib.import_module(module), name))

        def record(*args, **options):
            bound = signature.bind(*args, **options)
            found.append(bound.arguments)
            raise Reached

        with monkeypatch.context() as patched:
            for place, answer in answers.items():
                patched.setattr(place.replace("__", "."), answer)
            patched.setattr(importlib.import_module(module), name, record)
            code = main([word.format(**places) for word in line.split(" ")])
        error = capsys.readouterr().err
        assert (code, len(found)) == (1, 1) and "Reached" in error, error
        assert not built or built[-1] == ("random", "alexnet", {"include_top": False}, 0)
        return found[0]

    return call


FIGURES = [
    ("saliency {image} --target 2", "saliency", {"target": "2"}),
    ("smoothgrad {image} --samples 3 --noise 0.25 --seed 5 --target 1", "smoothgrad",
     {"target": "1", "samples": 3, "noise": 0.25, "seed": 5}),
    ("gradcam {image} --layer conv2", "gradcam", {"layer": "conv2"}),
    ("gradcam++ {image} --layer conv2", "gradcam_plus_plus", {"layer": "conv2"}),
    ("scorecam {image} --layer conv1 --batch-size 7", "scorecam",
     {"layer": "conv1", "batch_size": 7}),
    ("compare {image} --methods guided gradcam --target 1 --down-to conv2 --layer conv1"
     " --samples 3 --seed 4", "compare_attributions",
     {"methods": ["guided", "gradcam"], "target": "1", "down_to": ["conv2"], "layer": "conv1",
      "samples": 3, "seed": 4}),
    ("activation-maximization --layer conv5 --unit 3 7 --steps 9 --smoothness 0.5 --seed 2"
     " --image-size 70", "activation_maximization",
     {"layer": "conv5", "unit": ["3", "7"], "steps": 9, "smoothness": 0.5, "seed": 2,
      "image_size": 70}),
    ("deconvnet {image} --layer conv2 --unit 3 --rule guided", "deconvnet",
     {"layer": "conv2", "unit": 3, "rule": "guided"}),
    ("stack {image} --layer conv2 --unit 3", "deconvnet", {"layer": "conv2", "unit": 3}),
    ("rules {image} --layer conv2 conv1", "deconvnet", {"layer": "conv2"}),
    ("invariance {image} --transform scale --layer conv1 conv2 --fill 9 --target 2", "invariance",
     {"transform": "scale", "layers": ["conv1", "conv2"], "fill": 9, "labels": [2]}),
    ("occlusion {image} --square 5 --stride 2 --fill 1 2 3 --target 1 --layer conv2 --unit 3"
     " --edge clip --method plain --batch-size 9", "occlusion",
     {"square": 5, "stride": 2, "fill": [1, 2, 3], "target": "1", "layer": "conv2", "unit": 3,
      "edge": "clip", "method": "plain", "batch_size": 9}),
    ("occlusion {image} --fill 7", "occlusion", {"fill": 7, "square": None, "stride": None}),
    ("correspondence {parts} --layer conv2 --fill 9 --draws 2 --seed 3 --image-size 38",
     "correspondence", {"layers": ["conv2"], "fill": 9, "draws": 2, "seed": 3}),
    ("top9 digits --layer conv2 --rule guided --split train --image-size 40",
     "find_top_activations", {"layers": ["conv2"], "image_size": 40}),
    ("layer2 digits --layer conv2 --unit 1 2 --count 3 --seed 4 --rule guided --image-size 40",
     "second_layer_filters",
     {"layer": "conv2", "units": [1, 2], "count": 3, "seed": 4, "rule": "guided",
      "image_size": 40}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "function", "expected"), FIGURES)
def test_options_of_a_figure(reach, network, line, function, expected):
    name, _, rest = line.partition(" ")
    found = reach(
        f"visualize {name} random {rest}{RANDOM.removeprefix('random')} --output {{new}}.png",
        f"cnnkit.visualize.{function}",
    )
    assert {key: found[key] for key in expected} == expected
    model = found["model"]
    assert model is network
    if name == "correspondence":
        assert found["images"].shape == (2, 38, 38, 3)
    elif "images" in found or "image" in found:
        assert np.shape(found.get("images", found.get("image")))[-3:] == (32, 32, 3)
    if name == "top9":
        assert len(found["source"]) == 1438
        found["progress"](1)


def test_options_of_the_microscope_and_the_report(reach):
    found = reach(
        f"microscope {RANDOM} digits --layers conv1 conv2 --units 0 2 --sample 8 --images 3"
        " --rules guided --split train --image-size 40 --overwrite --output {new}"
        .replace(RANDOM, "random") + RANDOM.removeprefix("random"),
        "cnnkit.reports.microscope.write.write_microscope",
    )  # fmt: skip
    expected = {
        "layers": ["conv1", "conv2"], "units": [0, 2], "sample": 8, "images": 3, "run": None,
        "rules": ["guided"], "split": "train", "image_size": 40, "overwrite": True,
        "progress": progress_bar,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    line = "report {run} --output {new} --dataset digits --explain guided --overwrite"
    found = reach(line, "cnnkit.reports.write.write_report")
    expected = {"dataset": "digits", "overwrite": True, "explain": "guided"}
    assert {key: found[key] for key in expected} == expected
    assert found["progress"] is progress_bar


def test_options_of_features_and_neighbors(reach, places):
    found = reach(
        f"features {RANDOM} --dataset digits --layer conv2 --split train --scales 40,48"
        " --aggregate max --no-flip --pool max --no-l2 --shard 1/3 --batch-size 9 --output {new}"
        " --background #0000ff --no-exif-orientation",
        "cnnkit.features.write_features",
    )
    expected = {
        "split": "train", "shard": (1, 3), "batch_size": 9,
        "spec": FeatureSpec("conv2", (40, 48), "max", False, "max", False, None),
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    found = reach(
        f"features {RANDOM} --dataset digits --image-size 70 --output {{new}}",
        "cnnkit.features.write_features",
    )
    assert found["spec"] == FeatureSpec("fc7", (), "stack", False, "flatten", True, 70)
    assert found["dataset"].splits["test"].decoding == Decoding()
    found = reach(
        f"neighbors {RANDOM} --query {{image}} --index {{features}} --dataset digits --k 2",
        "cnnkit.features.find_neighbors",
    )
    assert (found["k"], found["files"]) == (2, [places["image"]])


def test_options_of_an_export(reach):
    limits = "--max-images 5 --max-file-bytes 6 --max-pixels 7 --max-request-pixels 8"
    found = reach(
        f"export {RANDOM} --output {{new}} --version 3 --signatures serving_bytes --top 2"
        f" --explain-layers conv2 --features-layer fc8 --dtype bfloat16 --warmup 4 {limits}"
        " --fully-convolutional --max-free-pixels 9 --labels {labels} --scale 48"
        " --background #0000ff --no-exif-orientation",
        "cnnkit.export.export",
    )
    expected = {
        "labels": ("cat", "dog", "fox"), "version": 3, "signatures": ["serving_bytes"], "top": 2,
        "explain_layers": ["conv2"], "features_layer": "fc8", "dtype": "bfloat16",
        "fully_convolutional": True, "warmup": 4, "augmentation": Augmentation(32, scale=(48, 48)),
        "limits": ImageLimits(5, 6, 7, 9, 8), "decoding": BLUE, "progress": request_bar,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert found["origin"].source == "random"
    found = reach(
        f"export {RANDOM} --output {{new}} --format onnx --quantize int8-static --photos {{tmp}}"
        " --fully-convolutional --labels {labels} --scale 48 --overwrite --background #0000ff"
        " --no-exif-orientation",
        "cnnkit.export.export_for_runtime",
    )
    expected = {
        "labels": ("cat", "dog", "fox"), "format": "onnx", "quantize": "int8-static",
        "fully_convolutional": True, "augmentation": Augmentation(32, scale=(48, 48)),
        "decoding": BLUE, "overwrite": True, "progress": progress_bar,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert found["origin"].source == "random" and found["photos"]


def test_options_of_predictions_and_boxes(reach):
    found = reach(
        "predict random {image}" + RANDOM.removeprefix("random")
        + " --top 2 --batch-size 9 --panel {new}.png --explain guided --target 1"
        " --background #0000ff --no-exif-orientation --labels {labels}",
        "cnnkit.evaluation.predict.iter_predictions",
    )  # fmt: skip
    expected = {"top": 2, "batch_size": 9, "kept": 40, "explain": "guided", "target": "1"}
    assert {key: found[key] for key in expected} == expected
    assert found["classifier"].decoding == BLUE
    assert found["classifier"].class_names == ("cat", "dog", "fox")
    line = "localize random {image}" + RANDOM.removeprefix("random")
    found = reach(f"{line} --method dense --scales 40,48", "cnnkit.evaluation.Localizer")
    expected = {"method": "dense", "scales": (40, 48), "options": {}}
    assert {key: found.get(key, {}) for key in expected} == expected
    found = reach(
        f"{line} --method gradcam --top 3 --background #0000ff --no-exif-orientation",
        "cnnkit.evaluation.localize.iter_localizations",
    )
    assert (found["top"], found["localizer"].method) == (3, "gradcam")
    assert found["localizer"].network.decoding == BLUE


def test_options_of_a_transfer(reach):
    line = (
        f"transfer {RANDOM} --dataset digits --layer conv1 conv2 --classifier svm softmax"
        " --per-class 2,3 5 --test-per-class 0 --splits 2 --seed 5 --batch-size 9 --pool max"
    )
    found = reach(line, "cnnkit.transfer.extract_layers")
    spec = FeatureSpec("conv1", (), "stack", False, "max", True, None)
    assert (found["layers"], found["spec"]) == (["conv1", "conv2"], spec)
    assert (found["batch_size"], len(found["images"])) == (9, 1797)
    found = reach(
        line, "cnnkit.transfer.score_layers",
        cnnkit__transfer__extract_layers=lambda *_, **__: "features",
    )  # fmt: skip
    expected = {
        "features": "features", "classifiers": ["svm", "softmax"], "per_class": (2, 3, 5),
        "test_per_class": None, "splits": 2, "seed": 5,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(("more", "metric"), [("", "area"), (" --metric eleven-point", None)])
def test_options_of_a_transfer_to_several_labels(reach, places, more, metric):
    names = ("bird", "cat")
    marks = {"train": "train marks", "test": "test marks", "val": "val marks"}
    source = SimpleNamespace(
        spec="voc", class_names=names, splits=dict.fromkeys(marks, "x"), voc_labels=marks
    )
    features = SimpleNamespace(values=["a", "b"], spec=FeatureSpec("conv1", l2=False))
    line = f"transfer {RANDOM} --dataset voc:{{tmp}} --layer conv1 conv2 --classifier softmax"
    found = reach(
        f"{line} --seed 5 --train-split train --test-split val{more}",
        "cnnkit.transfer.score_multilabel",
        cnnkit__data__sources__voc__load_voc=lambda path: source,
        cnnkit__transfer__extract_layers=lambda *_, **__: features,
    )
    options = {"classifier": "softmax", "l2": False, "seed": 5}
    assert {key: found[key] for key in options} == options
    assert found["metric"] == (metric or "eleven-point")
    assert list(found.values())[:6] == ["a", "train marks", "a", "val marks", "conv1", names]


def test_options_of_a_saved_classifier(places, network, monkeypatch, capsys):
    seen = []

    class Probe:
        classes, multilabel, fingerprint, networks = ("a", "b"), False, "", ("small",)

        def predict(self, networks, images, *, batch_size, progress):
            seen.append((networks, len(images), batch_size))
            progress(len(images))
            return np.array([[0.25, 0.75]])

    monkeypatch.setattr("cnnkit.transfer.load_linear_probe", lambda folder: Probe())
    monkeypatch.setattr(load_network_module, "_fresh_network", lambda *_: network)
    saved = Path(places["tmp"], "features", "transfer.json")
    saved.touch()
    words = [
        "transfer",
        "predict",
        str(saved.parent),
        places["image"],
        "--network",
        *RANDOM.split(),
    ]
    assert main([*words, "--batch-size", "9", "--json"]) == 0
    assert seen == [([network], 1, 9)]
    [row] = json.loads(capsys.readouterr().out)["images"]
    assert row == {
        "image": places["image"], "labels": ["b"], "scores": {"a": 0.25, "b": 0.75}
    }  # fmt: skip


def test_options_of_a_reproduction(reach):
    line = "vgg.table2.d.parameters --output {new} --seeds 2 --batch-size 9"
    found = reach(f"reproduce {line}", "cnnkit.reproduction.reproduce")
    expected = {"seeds": 2, "data": None, "weights": None, "batch_size": 9}
    assert {key: found[key] for key in expected} == expected
    found = reach(
        "reproduce alexnet.text.cifar10.with-lrn --output {new} --seeds 2 --data digits",
        "cnnkit.reproduction.reproduce",
    )
    assert (found["seeds"], found["data"]) == (2, "digits")
    assert [type(one) for one in found["callbacks"]] == [TerminalProgress]


def test_options_of_a_training(reach, monkeypatch):
    closed = []
    monkeypatch.setattr(TerminalProgress, "close", lambda self: closed.append(self))
    line = "train --model cifar10_quick --dataset digits --image-size 32 --output {new}"
    found = reach(
        f"{line} --overwrite --download --verify --worker-timeout 7 --seed 3",
        "cnnkit.training.train",
    )
    expected = {
        "resume": False, "overwrite": True, "download": True, "verify": True, "workers": (),
        "worker_index": None, "worker_timeout": 7,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert (found["config"].seed, found["config"].image_size) == (3, 32)
    workers = "--strategy multiworker --workers a:1,b:2 --worker-index 1"
    found = reach(f"{line} {workers}", "cnnkit.training.train")
    expected = {"workers": ["a:1", "b:2"], "worker_index": 1, "worker_timeout": 300}
    assert {key: found[key] for key in expected} == expected
    assert not any(found[name] for name in ("overwrite", "download", "verify"))
    # The bar is taken away before the error is printed.
    assert [type(one) for one in closed] == [TerminalProgress] * 2


def test_options_of_a_weights_file(reach):
    line = (
        "weights convert {npz} --model alexnet --model-option hidden_units=7 --preprocessing caffe"
        " --channels RGB --mean 1,2,3 --std 4 --scale 2 --labels {labels} --output {new}.keras"
    )
    found = reach(line, "cnnkit.models.open_weights")
    stated = {
        "preprocessing": "caffe", "channels": "RGB", "mean": [1, 2, 3], "std": [4, 4, 4],
        "scale": 2, "class_names": ("cat", "dog", "fox"),
    }  # fmt: skip
    assert {key: found[key] for key in stated} == stated
    found = reach(
        line, "cnnkit.models.weights.convert.convert_weights",
        cnnkit__models__open_weights=lambda *_, **__: SimpleNamespace(),
    )  # fmt: skip
    assert found["overwrite"] is False and found["options"] == {"hidden_units": 7}
    line = "weights convert imagenet --model vgg16 --model-option include_top=false --overwrite"
    found = reach(
        f"{line} --output {{new}}.keras",
        "cnnkit.models.weights.download.download_imagenet_weights",
    )
    assert found["include_top"] is False


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("check digits --seed 3", {"seed": 3, "max_unreadable": 1.0, "decoding": BLUE}),
        ("sample digits --seed 3 --output {new}", {"seed": 3, "decoding": BLUE}),
        ("shard digits --seed 3 --output {new}", {"seed": 3}),
    ],
)
def test_options_of_a_dataset(reach, line, expected):
    colors = " --background #0000ff --no-exif-orientation" if "decoding" in expected else ""
    found = reach(f"data {line}{colors}", "cnnkit.data.load_dataset")
    assert {key: found[key] for key in expected} == expected


class Served:
    """A client of a server, which tells what it was asked."""

    def __init__(self):
        self.asked = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def __getattr__(self, name):
        def ask(*given, **options):
            self.asked.append((name, options))
            if name == "status":
                return [SimpleNamespace(version=7, state="AVAILABLE")]
            return [[SimpleNamespace(label="cat", probability=0.5)]] * 1

        return ask


def test_options_of_a_query(places, monkeypatch, capsys):
    module = importlib.import_module("cnnkit.cli.commands.query")
    client, opened = Served(), []

    def open_client(args, address, **options):
        opened.append((address, options))
        return client

    monkeypatch.setattr(module, "open_client", open_client)
    monkeypatch.setattr("cnnkit.figures.draw_explanations", lambda *given, **_: None)
    words = ["query", places["image"], "--server", "localhost:9", "--model", "m", "--watch",
             "--top", "2", "--timeout", "3", "--watch-seconds", "4", "--layer", "conv2",
             "--explain", f"{places['new']}.png", "--json"]  # fmt: skip
    for more, which in (
        (["--model-version", "7"], {"version": 7, "version_label": None}),
        (["--version-label", "stable"], {"version": None, "version_label": "stable"}),
    ):
        client.asked.clear()
        assert main([*words, *more]) == 0
        ready, status, classified, explained = client.asked
        ready[1].pop("on_change")
        assert ready == ("wait_until_ready", which) and status == ("status", which)
        assert classified == ("classify", {"model": "m", "top": 2, **which})
        assert explained == ("explain", {"model": "m", "layer": "conv2", **which})
        document = json.loads(capsys.readouterr().out)
        assert document["ready"]["versions"] == [7]
        assert (document["server"], document["model"]) == ("localhost:9", "m")
        assert (document["version"], document["label"]) == tuple(which.values())
    assert opened[0] == ("localhost:9", {"timeout": 3, "max_response_bytes": 2**26})


def test_options_of_a_load_test(monkeypatch, capsys):
    module = importlib.import_module("cnnkit.cli.commands.bench")
    client, opened = Served(), []

    def open_client(args, address, **options):
        opened.append(options)
        return client

    def run(ask, *, callers, requests, seconds):
        ask()
        return SimpleNamespace(
            percentile=lambda percent: 0.5, requests=requests, latencies=(0.5,), errors={},
            seconds=2.0, answers_per_second=0.5, client_cpu_seconds=0.5, callers=callers,
        )  # fmt: skip

    monkeypatch.setattr(module, "open_client", open_client)
    monkeypatch.setattr(module, "_signature_and_inputs", lambda *_: ("sign", {"x": 1}))
    monkeypatch.setattr("cnnkit.client.load_test.run_load_test", run)
    words = ["bench", "localhost:9", "--model", "m", "--callers", "2", "--timeout", "3"]
    words += ["--version-label", "stable", "--json"]
    for rows, batch in ((300, 300), (32, None)):
        assert main([*words, "--batch", str(rows)]) == 0
        [(name, options)] = client.asked
        assert options == {"model": "m", "version": None, "version_label": "stable",
                           "signature": "sign", "batch_size": batch}  # fmt: skip
        client.asked.clear()
        found = json.loads(capsys.readouterr().out)
    assert (found["images_per_second"], found["client_cpu_share"]) == (16, 0.25)
    assert (found["signature"], found["label"], found["callers"]) == ("sign", "stable", 2)
    assert opened[0] == {"timeout": 3, "max_attempts": 1}
