"""Reading PyTorch's weights: `.safetensors`, and state dictionaries in `.pth`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit.errors import UsageError
from cnnkit.models.preprocessing import TORCH
from cnnkit.models.weights.weights_file import OIHW, StoredLayer, StoredTensor, WeightsFile

# First parts of the layer names, in the order of the network: torchvision has features and
# classifier, timm has features, pre_logits and head.
STAGES = ("features", "pre_logits", "classifier", "head")
# The convolutions of torchvision's AlexNet, which has no normalization.
TORCHVISION_ALEXNET = {f"features.{i}" for i in (0, 3, 6, 8, 10)}
# Keys under which training checkpoints store the state dictionary.
CHECKPOINT_KEYS = ("state_dict", "model", "model_state_dict")


def read_safetensors(path: Path) -> WeightsFile:
    """Read a `.safetensors` file.

    Raises:
        UsageError: If the file is damaged, or has numbers or layers of an unknown kind.
    """
    from safetensors import SafetensorError, safe_open

    def reader(name: str) -> Callable[[slice], np.ndarray]:
        def read(part: slice) -> np.ndarray:
            # Opened anew for every block: the pages of an open file count as memory.
            with safe_open(path, framework="numpy") as file:
                return file.get_slice(name)[part]

        return read

    try:
        with safe_open(path, framework="numpy") as file:
            entries = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: tuple(entry.get_shape()) for name, entry in entries.items()}
            dtypes = {entry.get_dtype() for entry in entries.values()}
    except SafetensorError as error:
        raise UsageError(
            f"{path} is not a .safetensors file, or is incomplete", received=error
        ) from error
    if not dtypes <= {"F16", "F32", "F64"}:
        raise UsageError(
            f"{path} has numbers of an unsupported type",
            expected="F32, F16 or F64",
            received=", ".join(sorted(dtypes)),
        )
    tensors = {name: StoredTensor(name, shape, reader(name)) for name, shape in shapes.items()}
    return _from_state_dict(path, "PyTorch weights (.safetensors)", tensors)


def read_state_dict(path: Path, *, mmap: bool) -> WeightsFile:
    """Read a state dictionary that `torch.save` wrote, without running the code in it.

    Args:
        path: The file.
        mmap: Whether the file has the newer format, whose tensors can be read one by one.

    Raises:
        UsageError: If PyTorch is not installed, or the file has other contents.
    """
    try:
        import torch
    except ImportError:
        raise UsageError(
            f"{path} is a PyTorch file, and PyTorch is not installed",
            hint="pip install torch, or save the weights as .safetensors where it is installed",
        ) from None

    def load() -> Mapping[str, Any]:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except Exception as error:
            # torch.load rejects a pickle of anything but tensors, and fails in many ways for a
            # damaged file.
            raise UsageError(
                f"{path} is not a PyTorch state dictionary, or is incomplete",
                expected="the output of torch.save(model.state_dict(), FILE)",
                received=str(error).splitlines()[0],
            ) from error
        for key in CHECKPOINT_KEYS:
            if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
                content = content[key]
        if not isinstance(content, Mapping):
            raise UsageError(
                f"{path} is not a PyTorch state dictionary", received=type(content).__name__
            )
        return content

    loaded = load()
    shapes = {k: tuple(v.shape) for k, v in loaded.items() if isinstance(v, torch.Tensor)}

    def reader(name: str) -> Callable[[slice], np.ndarray]:
        def read(part: slice) -> np.ndarray:
            content = load() if mmap else loaded
            return content[name][part].to(torch.float32).numpy(force=True)

        return read

    if mmap:
        del loaded
    tensors = {name: StoredTensor(name, shape, reader(name)) for name, shape in shapes.items()}
    return _from_state_dict(path, "PyTorch weights (.pth)", tensors)


def _from_state_dict(path: Path, format: str, tensors: Mapping[str, StoredTensor]) -> WeightsFile:
    found = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    if any(name.endswith("running_mean") for name in found):
        raise UsageError(
            f"{path} is of a network with batch normalization",
            expected="one of the papers' networks, which have none",
        )
    names = sorted(
        (n.removesuffix(".weight") for n in found if n.endswith(".weight")), key=_sort_key
    )
    unknown = [name for name in names if name.split(".")[0] not in STAGES]
    if unknown or not names:
        raise UsageError(
            f"{path} has layers of unknown names",
            expected="torchvision's or timm's VGG, or torchvision's AlexNet",
            received=", ".join(unknown[:5]) or "none",
        )
    layers = [
        StoredLayer(name, found[f"{name}.weight"], found.get(f"{name}.bias")) for name in names
    ]
    is_alexnet = {name for name in names if name.startswith("features")} == TORCHVISION_ALEXNET
    is_vgg = layers[0].kernel.shape[2:] in ((), (3, 3))
    return WeightsFile(
        path,
        format,
        tuple(layers),
        OIHW,
        preprocessing=TORCH.by_convention("torchvision and timm"),
        match_by_name=False,
        normalizations=None if is_alexnet or is_vgg else {},
    )


def _sort_key(name: str) -> tuple[int, list[int]]:
    stage = name.split(".")[0]
    return (
        STAGES.index(stage) if stage in STAGES else len(STAGES),
        [int(digits) for digits in re.findall(r"\d+", name)],
    )
