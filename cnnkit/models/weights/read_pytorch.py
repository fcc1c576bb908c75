"""Reading PyTorch's weights: `.safetensors`, and state dictionaries in `.pth`.

PyTorch is not needed, and no code in a file runs.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from cnnkit._untrusted.limits import MAX_JSON_BYTES
from cnnkit._untrusted.pickles import Made
from cnnkit._untrusted.regular_files import open_regular_file
from cnnkit.errors import UsageError
from cnnkit.models.preprocessing import (
    IMAGENET_MEAN,
    TORCH,
    UNKNOWN,
    Preprocessing,
    from_statistics,
)
from cnnkit.models.weights.torch_file import (
    FLOATS,
    PickledTensor,
    describe,
    read_torch_file,
)
from cnnkit.models.weights.weights_file import (
    OIHW,
    LRNParameters,
    StoredLayer,
    StoredTensor,
    WeightsFile,
)

# First parts of the layer names, in the order of the network: torchvision has features and
# classifier, timm has features, pre_logits and head.
STAGES = ("features", "pre_logits", "classifier", "head")
# Modules from one convolution of torchvision's networks to the next, at most: the convolution, its
# ReLU and a pooling. A normalization makes one more.
MODULES_WITHOUT_NORMALIZATION = 3
ROLES = ("weight", "bias")
KERNEL_AXES = (2, 4)
# Buffers of a module that normalizes images: normalize.mean, pixel_std, new_mean.
STATISTIC = re.compile(r"(?:^|[._])(?P<kind>mean|std)$")
SAFETENSORS_FLOATS = ("F64", "F32", "F16", "BF16")
# Where a layer stands in a network: the index of its stage, and the numbers in its name.
LayerPlace = tuple[int, tuple[int, ...]]


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
                return file.get_slice(name)[part].astype(np.float32)

        return read

    with open_regular_file(path) as header:
        size = int.from_bytes(header.read(8), "little")
    if size > MAX_JSON_BYTES:
        raise UsageError(
            f"{path} has an absurd header",
            expected=f"at most {MAX_JSON_BYTES:,} bytes",
            received=f"{size:,}",
        )
    try:
        with safe_open(path, framework="numpy") as file:
            entries = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: tuple(entry.get_shape()) for name, entry in entries.items()}
            dtypes = {name: entry.get_dtype() for name, entry in entries.items()}
    except SafetensorError as error:
        raise UsageError(
            f"{path} is not a .safetensors file, or is incomplete", received=error
        ) from error
    other = {name: dtype for name, dtype in dtypes.items() if dtype not in SAFETENSORS_FLOATS}
    tensors = {
        name: StoredTensor(name, shape, reader(name))
        for name, shape in shapes.items()
        if name not in other
    }
    return _from_state_dict(path, "PyTorch weights (.safetensors)", tensors, other)


def read_state_dict(path: Path) -> WeightsFile:
    """Read what `torch.save` wrote, without running the code in it.

    Args:
        path: A state dictionary, or a checkpoint that holds one at any depth; in a zip archive, or
            in PyTorch's older format.

    Raises:
        UsageError: If the file has other contents, or is damaged.
    """
    file = read_torch_file(path)
    tensors: dict[str, StoredTensor] = {}
    other: dict[str, str] = {}
    for name, value in file.entries.items():
        if isinstance(value, PickledTensor) and value.type in FLOATS:
            tensors[name] = StoredTensor(name, value.shape, file.reader(value))
        elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
            tensors[name] = StoredTensor(name, value.shape, value.__getitem__)
        elif isinstance(value, (PickledTensor, Made, np.ndarray)):
            other[name] = describe(value)
    if not tensors:
        raise UsageError(
            f"{path} is not a PyTorch state dictionary",
            expected="the output of torch.save(model.state_dict(), FILE)",
            received=describe(file.content),
        )
    found = _from_state_dict(path, "PyTorch weights (.pth)", tensors, other)
    left_out = {"objects left out": ", ".join(file.foreign)} if file.foreign else {}
    return replace(found, metadata={**found.metadata, **left_out})


def _from_state_dict(
    path: Path, format: str, tensors: Mapping[str, StoredTensor], other: Mapping[str, str]
) -> WeightsFile:
    """Return the weights file of the tensors in `tensors`; `other` has the types of the rest."""
    if any(name.endswith("running_mean") for name in tensors):
        raise UsageError(
            f"{path} is of a network with batch normalization",
            expected="one of the papers' networks, which have none",
            hint="Fold it into the convolutions: torch.nn.utils.fusion.fuse_conv_bn_eval",
        )
    places = _layer_places(path, tensors, other)
    layers = []
    for _, roles in sorted(places.items()):
        kernel, bias = roles.get("weight"), roles.get("bias")
        if kernel is None or len(kernel.shape) not in KERNEL_AXES:
            raise UsageError(
                f"{path} has weights of another kind: {kernel or bias}",
                expected="convolutions and dense layers",
            )
        _, parts, _ = _split_name(kernel.name)
        layers.append(StoredLayer(".".join(parts), kernel, bias))
    normalizations, facts = _find_normalizations(list(places))
    outside = {name: tensor for name, tensor in tensors.items() if not _split_name(name)[1]}
    left_out = [name for name in outside if not STATISTIC.search(name)]
    if left_out:
        facts["tensors left out"] = ", ".join(left_out)
    return WeightsFile(
        path,
        format,
        tuple(layers),
        OIHW,
        preprocessing=_find_preprocessing(outside),
        match_by_name=False,
        normalizations=normalizations,
        metadata=facts,
    )


def _find_preprocessing(tensors: Mapping[str, StoredTensor]) -> Preprocessing:
    """Return the mean and the deviation of a module that normalizes, or those of torchvision."""
    found = {
        match["kind"]: tensor
        for name, tensor in tensors.items()
        if (match := STATISTIC.search(name)) and math.prod(tensor.shape) == len(IMAGENET_MEAN)
    }
    if found.keys() < {"mean", "std"}:
        return TORCH.by_convention("torchvision and timm")
    mean, std = (found[kind].array().reshape(-1) for kind in ("mean", "std"))
    stated = from_statistics(mean, std)
    return stated if stated.origin == UNKNOWN else stated.said_by_file(found["mean"].name)


def _layer_places(
    path: Path, tensors: Mapping[str, StoredTensor], other: Mapping[str, str]
) -> dict[LayerPlace, dict[str, StoredTensor]]:
    """Return the kernel and the bias of each layer, by the place of the layer in the network.

    Whatever wraps a network or a part of it, such as DataParallel or a compiled module, and
    whatever holds the network in a checkpoint adds words to the names: before the stage, where a
    network has the same words in all its names, or after it, where the numbers give the order.
    """
    networks: dict[str, dict[LayerPlace, dict[str, StoredTensor]]] = {}
    unknown = []
    for name in (*tensors, *other):
        prefix, parts, role = _split_name(name)
        if not parts:
            unknown += [prefix] if role.startswith(ROLES) and name in tensors else []
            continue
        if role not in ROLES or name not in tensors:
            raise UsageError(
                f"{path} has {name}, which is not the kernel or the bias of a layer",
                expected="weight and bias, as floating point numbers of 64, 32 or 16 bits",
                received=other.get(name),
                hint="Undo pruning, quantization or parametrization before saving",
            )
        numbers = tuple(map(int, re.findall(r"\d+", ".".join(parts[1:]))))
        place = (STAGES.index(parts[0]), numbers)
        roles = networks.setdefault(prefix, {}).setdefault(place, {})
        if role in roles:
            raise UsageError(
                f"{path} does not tell the order of its layers",
                expected="names with different numbers",
                received=f"{roles[role].name}, {name}",
            )
        roles[role] = tensors[name]
    if unknown or not networks:
        raise UsageError(
            f"{path} has layers of unknown names",
            expected="torchvision's or timm's VGG, or torchvision's AlexNet",
            received=", ".join(unknown[:5]) or "none",
        )
    if len(networks) > 1:
        raise UsageError(
            f"{path} has more than one network",
            expected="one network",
            received=", ".join(name or "the names without a prefix" for name in networks),
            hint="Save the one that you want by itself, with torch.save",
        )
    return next(iter(networks.values()))


def _split_name(name: str) -> tuple[str, list[str], str]:
    """Split the name of a tensor into what is before its stage, its layer, and its role."""
    *parts, role = name.split(".")
    at = max((i for i, part in enumerate(parts) if part in STAGES), default=len(parts))
    return ".".join(parts[:at]), parts[at:], role


def _find_normalizations(
    places: list[LayerPlace],
) -> tuple[dict[str, LRNParameters] | None, dict[str, str]]:
    """Return None if the numbers of the modules leave no room for a normalization.

    Modules without weights, such as `LocalResponseNorm`, are not in a state dictionary. Of them
    only the number between two convolutions is known.
    """
    numbers = [number for stage, number in sorted(places) if STAGES[stage] == "features"]
    for one, other in itertools.pairwise(numbers):
        single = len(one) == len(other) == 1
        if not single or other[0] - one[0] > MODULES_WITHOUT_NORMALIZATION:
            pair = " and ".join(".".join(map(str, ("features", *place))) for place in (one, other))
            return {}, {"normalization": f"unknown: the modules between {pair} are not in the file"}
    return None, {}
