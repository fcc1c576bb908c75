"""A network of ours again in plain PyTorch, layer by layer, and PyTorch's steps for networks.py.

PyTorch is imported where it is used, so that this file needs none to be imported or run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

PEERS = ("contiguous", "channels_last", "compiled")
POOLINGS = ("MaxPooling2D", "CeilMaxPooling2D", "IndexedMaxPooling2D")
LEARNING_RATE = 1e-6  # random labels teach nothing; the weights only have to stay finite
MOMENTUM = 0.9


@dataclass(frozen=True)
class Steps:
    """What is timed.

    Attributes:
        forward: Answers a batch.
        train: Takes one training step and returns its loss.
        wait: Returns when the device has done what it was given.
        peak_memory: Returns the bytes that a training step holds at once on an accelerator, weights
            included; None where it is unknown.
    """

    forward: Callable[[], object]
    train: Callable[[], object]
    wait: Callable[[], object]
    peak_memory: Callable[[], int | None] = lambda: None


def peer(model, device: str, layout: str):
    """Returns the PyTorch network of the same layers and weights; it takes (n, 3, h, w).

    Args:
        model: A chain of Keras layers with logits at its end.
        device: `"cpu"` or `"cuda"`.
        layout: `"contiguous"` or `"channels_last"`, how PyTorch is to lay out its tensors.

    Raises:
        RuntimeError: If a layer has no counterpart here, or the parameters are not as many.
    """
    import torch

    modules, maps = [], None
    for layer in model.layers:
        if type(layer).__name__ == "Flatten":
            maps = layer.input.shape[1:]
        modules += _modules(torch, layer, maps)
        if type(layer).__name__ == "Dense":
            maps = None
    network = torch.nn.Sequential(*modules)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if parameters != model.count_params():
        raise RuntimeError(f"{model.name}: {model.count_params()} parameters, peer {parameters}")
    return network.to(device, memory_format=_format(torch, layout))


def peer_images(images: np.ndarray, device: str, layout: str):
    """Returns (n, h, w, 3) images as the PyTorch network takes them."""
    import torch

    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    return tensor.to(device).contiguous(memory_format=_format(torch, layout))


def steps(network, parameters, images, labels, *, autocast: bool, held: int = 0) -> Steps:
    """Returns PyTorch's steps.

    Args:
        network: Takes images and whether it is training.
        parameters: What the training step changes.
        images: A batch, on its device.
        labels: (n,) int64 classes, on the same device.
        autocast: Whether PyTorch is to compute in bfloat16 what it holds safe.
        held: Bytes of the accelerator that were held before the network was made.
    """
    import torch

    device = images.device.type
    on_gpu = device == "cuda"
    optimizer = torch.optim.SGD(parameters, LEARNING_RATE, momentum=MOMENTUM, fused=on_gpu)

    def forward():
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=autocast):
            return network(images, False)

    def train():
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            loss = torch.nn.functional.cross_entropy(network(images, True), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def peak_memory():
        torch.cuda.reset_peak_memory_stats()
        train()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - held

    if not on_gpu:
        return Steps(forward, train, lambda: None)
    return Steps(forward, train, torch.cuda.synchronize, peak_memory)


def peer_steps(model, images, labels, *, kind: str, device: str, autocast: bool) -> Steps:
    """Returns the steps of the PyTorch network with the layers and weights of a Keras model.

    Args:
        model: As `peer` takes it.
        images: (n, h, w, 3) float32.
        labels: (n,) int64 classes.
        kind: `"contiguous"` or `"channels_last"`, eager in that layout; `"compiled"` is
            channels_last by `torch.compile`.
        device: `"cpu"` or `"cuda"`.
        autocast: As `steps` takes it.
    """
    import torch

    held = torch.cuda.memory_allocated() if device == "cuda" else 0
    layout = "contiguous" if kind == "contiguous" else "channels_last"
    network = peer(model, device, layout)
    parameters = list(network.parameters())
    called = torch.compile(network) if kind == "compiled" else network
    images = peer_images(images, device, layout)
    labels = torch.from_numpy(labels).to(device)

    def run(x, training):
        network.train(training)
        return called(x)

    return steps(run, parameters, images, labels, autocast=autocast, held=held)


def allow_tf32(allowed: bool) -> None:
    """Says whether PyTorch may round float32 to TF32, as the other backends do by default."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def _modules(torch, layer, maps) -> list:
    """Returns what stands for one layer; `maps` is (h, w, c) before it where it was flattened."""
    nn, kind = torch.nn, type(layer).__name__
    if kind in ("Conv2D", "GroupedConv2D"):
        return [_convolution(torch, layer), *_activation(nn, layer.activation)]
    if kind == "Dense":
        return [_dense(torch, layer, maps), *_activation(nn, layer.activation)]
    if kind in ("Activation", "Probabilities"):
        return _activation(nn, layer.activation)
    if kind == "ReLU":
        return [nn.ReLU()]
    if kind == "ZeroPadding2D":
        (top, bottom), (left, right) = layer.padding
        return [nn.ZeroPad2d((left, right, top, bottom))]
    if kind in POOLINGS and layer.padding == "valid":
        ceil = kind == "CeilMaxPooling2D"
        return [nn.MaxPool2d(layer.pool_size, layer.strides, ceil_mode=ceil)]
    if kind == "LocalResponseNormalization" and layer.region == "across":
        # PyTorch divides alpha by the size of the window.
        alpha = layer.alpha * (layer.size if layer.alpha_convention == "sum" else 1)
        return [nn.LocalResponseNorm(layer.size, alpha, layer.beta, layer.k)]
    if kind == "Dropout":
        return [nn.Dropout(layer.rate)]
    if kind == "Flatten":
        return [nn.Flatten()]
    if kind == "SubtractMean":
        return [_subtract_mean(torch, layer)]
    if kind == "InputLayer":
        return []
    raise RuntimeError(f"benchmarks/torch_networks.py knows no counterpart of {kind} {layer.name}")


def _convolution(torch, layer):
    kernel, bias = layer.get_weights()
    same = layer.padding == "same"
    if same and (set(layer.strides) != {1} or not all(side % 2 for side in layer.kernel_size)):
        raise RuntimeError(f"PyTorch pads {layer.name} in another way")
    module = torch.nn.Conv2d(
        kernel.shape[2] * layer.groups,
        layer.filters,
        layer.kernel_size,
        layer.strides,
        padding=[side // 2 for side in layer.kernel_size] if same else 0,
        groups=layer.groups,
    )
    return _filled(torch, module, kernel.transpose(3, 2, 0, 1), bias)


def _dense(torch, layer, maps):
    kernel, bias = layer.get_weights()
    units = kernel.shape[1]
    if maps is not None:
        # Keras flattens (h, w, c), PyTorch (c, h, w).
        kernel = kernel.reshape(*maps, units).transpose(2, 0, 1, 3).reshape(-1, units)
    return _filled(torch, torch.nn.utils.skip_init(torch.nn.Linear, *kernel.shape), kernel.T, bias)


def _filled(torch, module, weight, bias):
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
        module.bias.copy_(torch.from_numpy(np.array(bias)))
    return module


def _activation(nn, activation) -> list:
    name = getattr(activation, "__name__", type(activation).__name__).lower()
    known = {"linear": [], "relu": [nn.ReLU()], "tanh": [nn.Tanh()], "sigmoid": [nn.Sigmoid()]}
    if name not in known:
        raise RuntimeError(f"benchmarks/torch_networks.py knows no counterpart of {name}")
    return known[name]


def _subtract_mean(torch, layer):
    def constant(values):
        values = torch.tensor(values, dtype=torch.float32)
        return values[:, None, None] if values.ndim == 1 else values.permute(2, 0, 1)

    class SubtractMean(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", constant(layer.mean))
            self.register_buffer("std", None if layer.std is None else constant(layer.std))

        def forward(self, images):
            centerd = images - self.mean
            return centerd if self.std is None else centerd / self.std

    return SubtractMean()


def _format(torch, layout: str):
    return torch.channels_last if layout == "channels_last" else torch.contiguous_format
