"""Files of PyTorch against PyTorch itself."""

import argparse
import collections
import pathlib
import sys
import zipfile

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from cnnkit import load_model
from cnnkit.cli.load_network import add_network_arguments, load_from_arguments
from cnnkit.cli.main import main
from cnnkit.config import TrainingConfig
from cnnkit.errors import AssumptionWarning, UsageError
from cnnkit.models import Preprocessing, alexnet, logits_tensor, open_weights, vgg11, vgg16
from cnnkit.models.preprocessing import override_preprocessing
from cnnkit.training.build import load_initial_model
from tests.helpers.weights_files import SIDE, PickleBomb, assert_close, randomized, state_dict_of

VGG11_PLACES = (0, 3, 6, 8, 11, 13, 16, 18)


TORCHVISION = [f"classifier.{i}" for i in (0, 3, 6)]


TIMM = ["pre_logits.fc1", "pre_logits.fc2", "head.fc"]


@pytest.mark.parametrize("dense", [TORCHVISION, TIMM], ids=["torchvision", "timm"])
def test_safetensors_of_vgg(tmp_path, images, dense):
    options = {"input_shape": (SIDE, SIDE, 3), "classes": 3, "classifier_activation": None}
    model = randomized(vgg11(include_preprocessing=False, **options))
    state = state_dict_of(model, VGG11_PLACES, dense, convolutional=dense is TIMM)
    save_file(state, tmp_path / "vgg11.safetensors")
    ours = vgg11(weights=tmp_path / "vgg11.safetensors", **options)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    assert_close(ours(images), model(((images / 255 - mean) / std).astype("float32")), 1e-4)


def torch_network(kind, rng, side=2):
    """torchvision's layout, by hand, without its pooling to a fixed size: maps of `side`."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    if kind == "alexnet":
        layers, channels = [], 3
        for filters, size, stride, pad, pooled in (
            (64, 11, 4, 2, True), (192, 5, 1, 2, True), (384, 3, 1, 1, False),
            (256, 3, 1, 1, False), (256, 3, 1, 1, True),
        ):  # fmt: skip
            layers += [nn.Conv2d(channels, filters, size, stride, pad), nn.ReLU()]
            layers += [nn.MaxPool2d(3, 2)] if pooled else []
            channels = filters
        units = 32
        drops = [nn.Dropout(), nn.Linear(256 * 3**2, units), nn.ReLU(), nn.Dropout()]
        head = nn.Sequential(*drops, nn.Linear(units, units), nn.ReLU(), nn.Linear(units, 5))
    else:
        columns = {
            "vgg11": "64 M 128 M 256 256 M 512 512 M 512 512 M",
            "vgg13": "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
            "vgg16": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
            "vgg19": "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
        }
        layers, channels = [], 3
        for word in columns[kind].split():
            if word == "M":
                layers.append(nn.MaxPool2d(2, 2))
            else:
                layers += [nn.Conv2d(channels, int(word), 3, padding=1), nn.ReLU()]
                channels = int(word)
        drops = [nn.Linear(512 * side**2, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096)]
        head = nn.Sequential(*drops, nn.ReLU(), nn.Dropout(), nn.Linear(4096, 5))
    network = nn.Sequential()
    network.add_module("features", nn.Sequential(*layers))
    network.add_module("flatten", nn.Flatten())
    network.add_module("classifier", head)
    for weight in network.parameters():
        scale = np.sqrt(2 / weight[0].numel()) if weight.ndim > 1 else 1.0
        values = rng.normal(0, scale, tuple(weight.shape)).astype("float32")
        weight.data = torch.from_numpy(values)
    return network.eval()


@pytest.mark.parametrize("kind", ["vgg11", "vgg13", "vgg16", "vgg19", "alexnet"])
def test_pytorch_files_equal_pytorch(tmp_path, rng, kind):
    network = torch_network(kind, rng)
    torch = pytest.importorskip("torch")
    from cnnkit import models

    side = 131 if kind == "alexnet" else SIDE
    images = rng.uniform(0, 255, (2, side, side, 3)).astype("float32")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalized = ((images / 255 - mean) / std).transpose(0, 3, 1, 2).astype("float32")
    with torch.no_grad():
        expected = network(torch.from_numpy(normalized)).numpy()
    state = network.state_dict()
    files = {"plain.pth": state}
    if kind in ("vgg11", "alexnet"):
        files["old.pth"] = state
        files["checkpoint.pth"] = {
            "model": {f"module.{name}": value for name, value in state.items()}, "epoch": 3
        }  # fmt: skip
    save_file({n: v.numpy() for n, v in state.items()}, tmp_path / "plain.safetensors")
    for name, content in files.items():
        new = name != "old.pth"
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=new)
    options = {"input_shape": (side, side, 3), "classes": 5, "classifier_activation": None}
    if kind == "alexnet":
        options |= {"preset": "torchvision", "hidden_units": 32}
    for name in (*files, "plain.safetensors"):
        ours = getattr(models, kind)(weights=tmp_path / name, **options)
        assert_close(ours(images), expected, 1e-4)
    if kind == "alexnet":
        with pytest.raises(UsageError, match="without normalization, which alexnet has"):
            alexnet(weights=tmp_path / "plain.pth", **{**options, "preset": "one-weird-trick"})


# Weights with torchvision's names that were not trained with its mean and deviation: Caffe's VGG as
# others converted it, and torchvision's IMAGENET1K_FEATURES.
CAFFE_MEAN, FEATURES_MEAN = (123.68, 116.779, 103.939), (122.99925, 116.9991, 103.9992)
STATED = {
    "caffe": {"preprocessing": "caffe"},
    "in numbers": {"channels": "BGR", "mean": CAFFE_MEAN, "std": 1},
    "scaled": {"channels": "BGR", "mean": CAFFE_MEAN, "std": 1, "scale": 0.5},
    "features": {"mean": FEATURES_MEAN, "std": 1},
}


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    network = torch_network("vgg11", rng)
    path = tmp_path_factory.mktemp("vgg") / "vgg11.pth"
    torch.save(network.state_dict(), path)
    return path, network, rng.uniform(0, 255, (2, SIDE, SIDE, 3)).astype("float32")


def stated_options(stated):
    """The same as options of the command line."""
    words = []
    for name, value in stated.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        words += [f"--{name}", text]
    return words


def network_from(door, path, stated, folder):
    options = {"input_shape": (SIDE, SIDE, 3), "classes": 5}
    shape = ["--model-option", f"input_shape=[{SIDE},{SIDE},3]"]
    if door == "open_weights":
        return vgg11(weights=open_weights(path, **stated), **options)
    if door == "builder":
        given = override_preprocessing(
            Preprocessing(), stated.get("preprocessing"),
            **{name: value for name, value in stated.items() if name != "preprocessing"},
        )  # fmt: skip
        return vgg11(weights=path, preprocessing=given, **options)
    if door == "convert":
        words = ["--model", "vgg11", "--output", str(folder / "a.keras"), *shape]
        assert main(["weights", "convert", str(path), *words, *stated_options(stated)]) == 0
        return load_model(folder / "a.keras")
    if door == "train":
        pairs = {name: np.array(value).tolist() for name, value in stated.items()}
        config = TrainingConfig(
            model="vgg11", model_options={"input_shape": (SIDE, SIDE, 3)}, init_from=str(path),
            init_options=pairs,
        )  # fmt: skip
        return load_initial_model(config)
    if "scale" in stated:
        pytest.skip("other commands have --std for it")
    parser = argparse.ArgumentParser()
    add_network_arguments(parser)
    words = [str(path), "--model", "vgg11", *shape, *stated_options(stated)]
    return load_from_arguments(parser.parse_args(words)).model


@pytest.mark.parametrize("door", ["open_weights", "builder", "convert", "train", "commands"])
@pytest.mark.parametrize("kind", STATED)
def test_what_the_file_does_not_say_can_be_said(tmp_path, vgg_file, recwarn, kind, door):
    path, network, images = vgg_file
    mean = np.array(FEATURES_MEAN if kind == "features" else CAFFE_MEAN)
    inputs = (images - mean) * (0.5 if kind == "scaled" else 1)
    inputs = inputs if kind == "features" else inputs[..., ::-1]
    expected = torch_outputs(network, inputs)
    model = network_from(door, path, STATED[kind], tmp_path)
    assert_close(keras.Model(model.input, logits_tensor(model))(images), expected, 1e-4)
    assumed = [one for one in recwarn if issubclass(one.category, AssumptionWarning)]
    # Mean and deviation alone leave RGB to the convention.
    assert bool(assumed) == (kind == "features" and door != "builder")


def test_a_convention_is_a_warning(vgg_file):
    path, *_ = vgg_file
    options = {"input_shape": (SIDE, SIDE, 3), "classes": 5}
    with pytest.warns(AssumptionWarning, match="divided by 58.4 57.1 57.4, assumed: convention of"):
        vgg11(weights=path, **options)
    # The mean alone leaves the deviation to the convention.
    with pytest.warns(AssumptionWarning, match="minus 1.0 2.0 3.0, divided by 58.4 57.1 57.4"):
        vgg11(weights=path, mean=[1, 2, 3], **options)
    with pytest.raises(UsageError, match="`preprocessing` must be None, a Pre"):
        vgg11(weights=path, preprocessing="imagenet", **options)


@pytest.mark.slow
def test_a_whole_vgg16_equals_pytorch(tmp_path, rng):
    network = torch_network("vgg16", rng, side=7)
    torch = pytest.importorskip("torch")
    torch.save(network.state_dict(), tmp_path / "vgg16.pth")
    images = rng.uniform(0, 255, (1, 224, 224, 3)).astype("float32")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalized = ((images / 255 - mean) / std).transpose(0, 3, 1, 2).astype("float32")
    with torch.no_grad():
        expected = network(torch.from_numpy(normalized)).numpy()
    ours = vgg16(weights=tmp_path / "vgg16.pth", classes=5, classifier_activation=None)
    assert_close(ours(images), expected, 1e-4)


ALEXNET = {
    "preset": "torchvision",
    "input_shape": (131, 131, 3),
    "classes": 5,
    "hidden_units": 32,
    "classifier_activation": None,
}


@pytest.fixture(scope="module")
def trained():
    """torchvision's AlexNet in PyTorch, images, and its outputs for them."""
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    network = torch_network("alexnet", rng)
    images = rng.uniform(0, 255, (2, 131, 131, 3)).astype("float32")
    return network, images, torch_outputs(network, images / 255, *IMAGENET)


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def torch_outputs(network, images, mean=0, std=1):
    import torch

    images = (images - np.array(mean)) / np.array(std)
    with torch.no_grad():
        return network(torch.from_numpy(images.transpose(0, 3, 1, 2).astype("float32"))).numpy()


RENAMED = {
    "parallel features": lambda name: name.replace("features.", "features.module."),
    "parallel parts": lambda name: name.replace(".", ".module.", 1),
    "compiled layer": lambda name: name.replace("classifier.4", "classifier.4._orig_mod"),
    "lightning": lambda name: f"model.{name}",
    "attribute": lambda name: f"net.{name}",
    "compiled": lambda name: f"_orig_mod.{name}",
    "nested": lambda name: f"module._orig_mod.model.{name}",
    "behind normalization": lambda name: f"1.{name}",
    "called as a stage": lambda name: f"classifier.{name}",
}
CONTAINERS = ("net", "weights", "network", "model_state", "state_dict", "model", "model_state_dict")


@pytest.mark.parametrize("kind", [*RENAMED, *CONTAINERS, "deep", "parts", "module"])
def test_names_and_containers_of_checkpoints(tmp_path, trained, kind):
    import torch

    network, images, expected = trained
    state = network.state_dict()
    if kind in RENAMED:
        content = {RENAMED[kind](name): value for name, value in state.items()}
    elif kind in CONTAINERS:
        momentum = {0: {"momentum_buffer": torch.ones(3)}}
        content = {kind: state, "epoch": 3, "optimizer": {"state": momentum}, "scheduler": state}
    elif kind == "deep":
        content = {"checkpoint": {"ema": {"state_dict": {"module": state}}}, "best": [1, 2]}
    elif kind == "parts":
        content = {part: getattr(network, part).state_dict() for part in ("classifier", "features")}
    else:
        content = {"model": network, "epoch": 3}
    torch.save(content, tmp_path / "a.pth")
    file = open_weights(tmp_path / "a.pth")
    assert_close(alexnet(weights=file, **ALEXNET)(images), expected, 1e-4)
    # Nothing of this hides that the network has no normalization.
    with pytest.raises(UsageError, match="without normalization, which alexnet has"):
        alexnet(weights=file, **{**ALEXNET, "preset": "one-weird-trick"})


@pytest.mark.parametrize("kind", ["scalar", "namespace", "array", "bomb", "subclass"])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "old"])
def test_objects_beside_the_tensors_are_not_made(tmp_path, trained, capsys, kind, new):
    import torch

    network, images, expected = trained
    state = network.state_dict()
    more = {
        "scalar": {"accuracy": np.float64(0.5), "history": np.ones(3), "device": state},
        "namespace": {"args": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("/x"))},
        "bomb": {"more": PickleBomb()},
    }
    if kind == "array":
        content = {name: value.numpy() for name, value in state.items()}
    elif kind == "subclass":
        content = collections.defaultdict(dict, state)
    else:
        content = {"state_dict": state, **more[kind]}
        content.pop("device", None)
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
    file = open_weights(tmp_path / "a.pth")
    assert_close(alexnet(weights=file, **ALEXNET)(images), expected, 1e-4)
    left_out = {
        "namespace": "argparse.Namespace, pathlib.PurePosixPath",
        "bomb": "builtins.print",
        "subclass": "collections.defaultdict, builtins.dict",
    }
    assert file.metadata.get("objects left out", "").replace("__builtin__", "builtins") == (
        left_out.get(kind, "")
    )
    assert "this code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float64", "channels last", "shared"])
@pytest.mark.parametrize("format", ["zip", "old", "safetensors"])
def test_numbers_and_layouts_of_tensors(tmp_path, trained, kind, format):
    import torch
    from safetensors.torch import save_file as save_torch

    _, images, _ = trained
    network = torch_network("alexnet", np.random.default_rng(0))
    if kind == "channels last":
        network = network.to(memory_format=torch.channels_last)
    elif kind != "shared":
        # The network in float32 with the numbers that the file has.
        network = network.to(getattr(torch, kind)).float()
    state = network.state_dict()
    if kind == "shared":
        together = torch.cat([value.flatten() for value in state.values()])
        parts = together.split([value.numel() for value in state.values()])
        state = {
            name: part.view(state[name].shape) for name, part in zip(state, parts, strict=True)
        }
    elif kind != "channels last":
        state = {name: value.to(getattr(torch, kind)) for name, value in state.items()}
    if format == "safetensors":
        if kind == "shared":
            pytest.skip("safetensors refuses to write tensors that share memory")
        state = {name: value.contiguous() for name, value in state.items()}
        save_torch(state, tmp_path / "a.pth")
    else:
        torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=format == "zip")
    expected = torch_outputs(network, images / 255, *IMAGENET)
    assert_close(alexnet(weights=tmp_path / "a.pth", **ALEXNET)(images), expected, 1e-4)


def test_reading_needs_no_pytorch(tmp_path, trained, monkeypatch):
    import torch

    network, images, expected = trained
    torch.save(network.state_dict(), tmp_path / "a.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert_close(alexnet(weights=tmp_path / "a.pth", **ALEXNET)(images), expected, 1e-4)


def test_a_module_that_normalizes_is_read(tmp_path, trained):
    """Networks that take images in 0..1 often begin with a module of two buffers."""
    import torch

    class Normalize(torch.nn.Module):
        def __init__(self, mean, std):
            super().__init__()
            self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
            self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

        def forward(self, x):
            return (x - self.mean) / self.std

    network, images, _ = trained
    for factor in (1, 255):
        normalize = Normalize([0.5 * factor] * 3, [0.2 * factor, 0.3 * factor, 0.25 * factor])
        whole = torch.nn.Sequential(normalize, network)
        torch.save(whole.state_dict(), tmp_path / "a.pth")
        expected = torch_outputs(whole, images * factor / 255)
        ours = alexnet(weights=tmp_path / "a.pth", **ALEXNET)
        assert_close(ours(images), expected, 1e-4)
        assert (
            "stated in the file: 0.mean"
            in open_weights(tmp_path / "a.pth").preprocessing.describe()
        )


def test_room_for_a_normalization_is_said(tmp_path):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    layers = [nn.Conv2d(3, 64, 11), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2)]
    network = nn.Sequential()
    network.add_module("features", nn.Sequential(*layers, nn.Conv2d(64, 192, 5)))
    torch.save(network.state_dict(), tmp_path / "a.pth")
    file = open_weights(tmp_path / "a.pth")
    assert file.normalizations == {}
    assert "between features.0 and features.4" in file.metadata["normalization"]


class Rebuilt:
    """An object whose pickle makes a tensor of nothing."""

    def __reduce__(self):
        import torch

        return torch._utils._rebuild_tensor, (None, 0, (3,), (1,))


def refused_files(network):
    """Files that must not be read, by the text of the error."""
    import torch
    from torch.nn.utils import prune

    state = network.state_dict()
    double = {name: 2 * value for name, value in state.items()}
    pruned = torch_network("alexnet", np.random.default_rng(0))
    prune.l1_unstructured(pruned.classifier[4], "weight", 0.5)
    quantized = torch.quantize_per_tensor(state["features.0.weight"], 0.1, 0, torch.qint8)
    return {
        "more than one network.* Received: state_dict, ema": {"state_dict": state, "ema": double},
        "more than one network.* Received: student, tea": {
            **{f"student.{name}": value for name, value in state.items()},
            **{f"teacher.{name}": value for name, value in double.items()},
        },
        "does not tell the order": {
            **state, "features.module.0.weight": double["features.0.weight"]
        },
        "unknown names.* Received: criterion": {**state, "criterion.weight": torch.ones(5)},
        "unknown names.* Received: layer1.0": {"layer1.0.weight": torch.ones(5, 3, 3, 3)},
        "has classifier.4.weight_(orig|mask), which": pruned.state_dict(),
        "Received: torch._utils._rebuild_qtensor": {**state, "features.0.weight": quantized},
        "Received: torch.CharStorage": {
            **state, "features.0.weight": state["features.0.weight"].to(torch.int8)
        },
        "_rebuild_sparse_tensor": {
            **state, "features.0.weight": state["features.0.weight"].to_sparse()
        },
        "weights of another kind: features.2.weight": {**state, "features.2.weight": torch.ones(3)},
        "not a PyTorch state dictionary.* Received: list": [1, 2],
        "not a PyTorch state dictionary.* Received: .*print": PickleBomb(),
        "damaged or incomplete": {"features.0.weight": Rebuilt()},
        "Received: layer.x1b.2J": {"layer\x1b[2J.weight": torch.ones(5, 3)},
        "batch normalization": {**state, "features.1.running_mean": torch.ones(3)},
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_other_files_are_refused_in_one_line(tmp_path, trained, capsys):
    import torch

    network, *_ = trained
    cases = refused_files(network)
    for text, content in cases.items():
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(UsageError, match=text) as error:
            open_weights(tmp_path / "a.pth")
        assert str(error.value).isprintable()
    assert "this code ran" not in capsys.readouterr().out


def test_a_compressed_archive_is_named(tmp_path, trained):
    import torch

    network, *_ = trained
    torch.save(network.state_dict(), tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as before,
        zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as after,
    ):
        for name in before.namelist():
            after.writestr(name, before.read(name))
    with pytest.raises(UsageError, match="b.pth was compressed after PyTorch wrote it"):
        open_weights(tmp_path / "b.pth")


def test_features_with_placeholders_for_the_dense_layers(tmp_path, trained):
    """torchvision's IMAGENET1K_FEATURES has NaN in its classifier."""
    import torch

    network, images, _ = trained
    state = network.state_dict()
    for name in state:
        if name.startswith("classifier"):
            state[name] = torch.full_like(state[name], float("nan"))
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(UsageError, match="not finite.*`include_top=False` takes the convolutions"):
        alexnet(weights=tmp_path / "a.pth", **ALEXNET)
    options = {"preset": "torchvision", "input_shape": (131, 131, 3), "include_top": False}
    ours = alexnet(weights=tmp_path / "a.pth", **options)
    expected = torch_outputs(network.features, images / 255, *IMAGENET).transpose(0, 2, 3, 1)
    assert_close(ours(images), expected, 1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_named(tmp_path, trained):
    import torch

    network, images, _ = trained
    example = torch.zeros(1, 3, 131, 131)
    torch.jit.trace(network, example).save(str(tmp_path / "a.pt"))
    with pytest.raises(UsageError, match="is a TorchScript archive") as error:
        open_weights(tmp_path / "a.pt")
    assert "torch.save(torch.jit.load('a.pt').state_dict(), 'weights.pth')" in str(error.value)
