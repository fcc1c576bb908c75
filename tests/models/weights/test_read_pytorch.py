"""Files of PyTorch against PyTorch itself."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from cnnkit.errors import UsageError
from cnnkit.models import alexnet, open_weights, vgg11, vgg16
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


@pytest.mark.parametrize("new", [True, False])
def test_pytorch_code_is_not_run(tmp_path, capsys, new):
    torch = pytest.importorskip("torch")
    content = {"features.0.weight": torch.zeros(64, 3, 3, 3), "more": PickleBomb()}
    torch.save(content, tmp_path / "bomb.pth", _use_new_zipfile_serialization=new)
    with pytest.raises(UsageError, match="is not a PyTorch state dictionary, or is incomplete"):
        open_weights(tmp_path / "bomb.pth")
    torch.save([1, 2], tmp_path / "list.pth", _use_new_zipfile_serialization=new)
    with pytest.raises(UsageError, match="state dictionary. Received: list"):
        open_weights(tmp_path / "list.pth")
    assert "this code ran" not in capsys.readouterr().out
