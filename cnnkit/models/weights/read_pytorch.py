"""Files of PyTorch: `.safetensors`, and state dictionaries in `.pth`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from cnnkit.errors import UsageError
from cnnkit.models.preprocessing import TORCH
from cnnkit.models.weights.weights_file import OIHW, StoredLayer, StoredTensor, WeightsFile

# First words of the names, in the order of the network: torchvision has features and classifier,
# timm has features, pre_logits and head.
PARTS = ("features", "pre_logits", "classifier", "head")
# Where the convolutions of torchvision's AlexNet are, which has no normalization.
TORCHVISION_ALEXNET = {f"features.{i}" for i in (0, 3, 6, 8, 10)}
# Under which a training checkpoint keeps the state dictionary.
INNER = ("state_dict", "model", "model_state_dict")


def read_safetensors(path: Path) -> WeightsFile:
    """Reads a `.safetensors` file."""
    from safetensors import SafetensorError, safe_open

    def read(name: str) -> Callable[[slice], np.ndarray]:
        def rows(place: slice) -> np.ndarray:
            # Opened anew for every piece: the pages of an open file count as memory.
            with safe_open(path, framework="numpy") as file:
                return file.get_slice(name)[place]

        return rows

    try:
        with safe_open(path, framework="numpy") as file:
            entries = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: tuple(entry.get_shape()) for name, entry in entries.items()}
            kinds = {entry.get_dtype() for entry in entries.values()}
    except SafetensorError as error:
        raise UsageError(f"{path} is no whole .safetensors file", received=error) from error
    if not kinds <= {"F16", "F32", "F64"}:
        raise UsageError(
            f"{path} holds numbers of a kind that is not read",
            expected="F32, F16 or F64",
            received=", ".join(sorted(kinds)),
        )
    tensors = {name: StoredTensor(name, shape, read(name)) for name, shape in shapes.items()}
    return _state_dictionary(path, "PyTorch weights (.safetensors)", tensors)


def read_torch(path: Path, *, mapped: bool) -> WeightsFile:
    """Reads a state dictionary that `torch.save` wrote, without running the code in it.

    Args:
        path: The file.
        mapped: Whether it is of the newer kind, whose tensors can be read one by one.

    Raises:
        UsageError: If PyTorch is not installed, or the file holds something else.
    """
    try:
        import torch
    except ImportError:
        raise UsageError(
            f"{path} is a PyTorch file, and PyTorch is not installed",
            hint="pip install torch, or save the weights as .safetensors where it is",
        ) from None

    def load() -> Mapping:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except Exception as error:
            # A pickle that names other than tensors is refused, a torn file fails in many ways.
            raise UsageError(
                f"{path} holds no PyTorch state dictionary",
                expected="what torch.save(model.state_dict(), FILE) writes",
                received=str(error).splitlines()[0],
            ) from error
        for key in INNER:
            if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
                content = content[key]
        if not isinstance(content, Mapping):
            raise UsageError(
                f"{path} holds no PyTorch state dictionary", received=type(content).__name__
            )
        return content

    held = load()
    shapes = {k: tuple(v.shape) for k, v in held.items() if isinstance(v, torch.Tensor)}

    def read(name: str) -> Callable[[slice], np.ndarray]:
        def rows(place: slice) -> np.ndarray:
            content = load() if mapped else held
            return content[name][place].to(torch.float32).numpy(force=True)

        return rows

    if mapped:
        del held
    tensors = {name: StoredTensor(name, shape, read(name)) for name, shape in shapes.items()}
    return _state_dictionary(path, "PyTorch weights (.pth)", tensors)


def _state_dictionary(path: Path, kind: str, tensors: Mapping[str, StoredTensor]) -> WeightsFile:
    found = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    if any(name.endswith("running_mean") for name in found):
        raise UsageError(
            f"{path} is of a network with batch normalization",
            expected="one of the papers' networks, which have none",
        )
    names = sorted((n.removesuffix(".weight") for n in found if n.endswith(".weight")), key=_order)
    unknown = [name for name in names if name.split(".")[0] not in PARTS]
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
    has_none = is_alexnet or all(layer.kernel.shape[2:] in ((), (3, 3)) for layer in layers[:1])
    return WeightsFile(
        path,
        kind,
        tuple(layers),
        OIHW,
        preprocessing=TORCH,
        by_name=False,
        normalizations=None if has_none else {},
    )


def _order(name: str) -> tuple:
    part = name.split(".")[0]
    return (
        PARTS.index(part) if part in PARTS else len(PARTS),
        [int(digits) for digits in re.findall(r"\d+", name)],
    )
