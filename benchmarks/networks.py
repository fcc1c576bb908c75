"""Every network, forward and one step of training, beside the same network in plain PyTorch.

    python benchmarks/networks.py --backend jax --networks alexnet vgg16 --batch 64

Needs Keras, the backend it is asked for and, for the peer, PyTorch; of cnnkit only what needs no
TensorFlow, so PYTHONPATH=. does where cnnkit is not installed. A training step is forward with
dropout, backward and SGD with momentum on all weights. The peer is made from the Keras network
layer by layer, takes its weights, and must give the same logits before anything is timed. It runs
eagerly in both layouts and by `torch.compile`, with cuDNN's choice of kernels; the ratio is that to
the fastest. Tensor cores take float32 as TF32 on every side.

Without arguments a machine with an accelerator times all networks, batch 64, in float32 and
mixed_bfloat16, which for the peer is autocast to bfloat16. A CPU times `CPU_NETWORKS`, batch 4, in
float32 beside both eager layouts: some minutes on 2 cores. VGG takes minutes for each network
there, and bfloat16 about ten times as long as float32 on a CPU without instructions for it.
"""

from timing import interleaved  # isort: skip  (quiets TensorFlow before it is imported)

import argparse
import gc
import importlib.metadata
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable

import numpy as np
from keras_networks import STEPS, accelerated, exact_float32
from torch_networks import PEERS, Steps, allow_tf32, peer, peer_images, peer_steps

from cnnkit.errors import UsageError

CPU_NETWORKS = ("alexnet", "zfnet")
POLICIES = ("float32", "mixed_bfloat16")
REPEATS = 10  # steps between two waits on an accelerator
TOLERANCE = 3e-4  # of the largest logit
COLUMNS = ("cnnkit", *PEERS)
ROW = "{:<24} {:<15} {:<8}" + " {:>13}" * len(COLUMNS) + " {:>6}"


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--backend", choices=("tensorflow", "jax", "torch"), default="tensorflow", help="of Keras"
    )
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="their names, or all")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, help="dtype policies of Keras")
    parser.add_argument("--batch", type=int, metavar="N", help="images in a batch")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="the median counts")
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="instead of the network's")
    parser.add_argument("--peers", nargs="+", choices=PEERS, help="ways to run PyTorch's network")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser.parse_args()


def difference(model, options: argparse.Namespace) -> float:
    """Returns how far the peer's logits are apart from ours, as a part of the largest one.

    Raises:
        RuntimeError: If that is more than `TOLERANCE`.
    """
    import keras
    import torch

    images = np.random.default_rng(1).uniform(0, 255, (2, *model.input_shape[1:]))
    images = images.astype("float32")
    other = peer(model, options.device, "contiguous").eval()
    allow_tf32(False)
    with exact_float32(options.backend), torch.inference_mode():
        ours = keras.ops.convert_to_numpy(model(images, training=False))
        theirs = other(peer_images(images, options.device, "contiguous")).cpu().numpy()
    allow_tf32(True)
    apart = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    if not apart <= TOLERANCE:
        raise RuntimeError(f"{model.name}: PyTorch's logits differ by {apart:.1e} of the largest")
    return apart


def measure(name: str, policy: str, options: argparse.Namespace) -> list[dict]:
    """Times one network under one dtype policy and returns a row for each step."""
    model = network(name, policy, options)
    batch = batch_for(model, options.batch)
    apart = difference(model, options) if options.peers and policy == "float32" else None
    candidates, starts, memory = {}, {}, {}
    for key in ("cnnkit", *options.peers):
        begin = time.perf_counter()
        made = prepared(key, model, batch, policy, options)
        if made is not None:
            candidates[key], starts[key] = made, time.perf_counter() - begin
            memory[key] = made.peak_memory()
    rows = []
    for step in ("forward", "train"):
        calls = {key: repeated(made, step, options.repeats) for key, made in candidates.items()}
        seconds = interleaved(calls, options.rounds)
        speed = {key: options.batch * options.repeats / value for key, value in seconds.items()}
        peers = [speed[key] for key in speed if key != "cnnkit"]
        rows.append(
            {
                "network": name,
                "image_size": model.input_shape[1],
                "parameters": model.count_params(),
                "policy": policy,
                "step": step,
                "images_per_second": speed,
                "ratio": speed["cnnkit"] / max(peers) if peers else None,
                "logits_differ_by": apart,
                "seconds_to_compile": starts,
                "peak_memory_of_training": memory,
            }
        )
    return rows


def network(name: str, policy: str, options: argparse.Namespace, **choices):
    """Returns a network of cnnkit that ends in logits; `choices` are arguments of its builder."""
    import keras

    from cnnkit.models import build

    keras.config.set_dtype_policy(policy)
    side = options.image_size
    shape = None if side is None else (side, side, 3)
    return build(name, classifier_activation=None, input_shape=shape, **choices)


def batch_for(model, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns random images and labels for a model."""
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (count, *model.input_shape[1:])).astype("float32")
    return images, random.integers(0, model.output_shape[-1], count)


def prepared(key: str, model, batch, policy: str, options: argparse.Namespace) -> Steps | None:
    """Returns the steps of cnnkit or of a peer after the first of each, or None.

    None stands for a peer that cannot be compiled here, for want of a C++ compiler or of Triton.
    """
    try:
        if key == "cnnkit":
            steps = STEPS[options.backend](model, *batch)
        else:
            autocast = policy != "float32"
            steps = peer_steps(model, *batch, kind=key, device=options.device, autocast=autocast)
        steps.forward()
        steps.train()
        steps.wait()
    except RuntimeError as error:
        if key != "compiled":
            raise
        reason = next(iter(str(error).strip().splitlines()), "")
        print(f"torch.compile failed: {type(error).__name__}: {reason}", file=sys.stderr)
        return None
    return steps


def repeated(steps: Steps, step: str, times: int) -> Callable[[], None]:
    """Returns a call of so many steps that ends when the device is done."""
    function = getattr(steps, step)

    def call():
        for _ in range(times):
            function()
        steps.wait()

    return call


def complete(options: argparse.Namespace) -> None:
    """Fills what was not asked for with what suits the machine.

    Raises:
        SystemExit: If there is no such network.
    """
    from cnnkit.models import BUILDERS

    accelerator = accelerated(options.backend)
    options.device = "cuda" if accelerator else "cpu"
    options.batch = options.batch or (64 if accelerator else 4)
    options.policies = options.policies or (POLICIES if accelerator else POLICIES[:1])
    names = options.networks or (["all"] if accelerator else CPU_NETWORKS)
    options.networks = list(BUILDERS) if "all" in names else list(names)
    unknown = [name for name in options.networks if name not in BUILDERS]
    if unknown:
        sys.exit(f"No network {', '.join(unknown)}: expected some of {', '.join(BUILDERS)}, or all")
    options.repeats = REPEATS if accelerator else 1
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed: cnnkit is timed alone", file=sys.stderr)
        options.peers = ()
        return
    import torch

    if accelerator and not torch.cuda.is_available():
        print("This PyTorch sees no accelerator: cnnkit is timed alone", file=sys.stderr)
        options.peers = ()
        return
    options.peers = options.peers or (PEERS if accelerator else PEERS[:2])
    allow_tf32(True)
    torch.backends.cudnn.benchmark = True


def conditions(options: argparse.Namespace) -> dict:
    """Returns what the figures depend on."""
    names = ("keras", options.backend, *(["torch"] if options.peers else []))
    return {
        "backend": options.backend,
        "device": options.device,
        "card": card(options),
        "cores": os.cpu_count(),
        "batch": options.batch,
        "rounds": options.rounds,
        "versions": {name: importlib.metadata.version(name) for name in names},
    }


def card(options: argparse.Namespace) -> str:
    """Returns the name of the accelerator, or "CPU"."""
    if options.device == "cpu":
        return "CPU"
    if options.backend == "jax":
        import jax

        return str(jax.devices()[0].device_kind)
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "accelerator"


def main() -> None:
    """Measures and prints."""
    options = arguments()
    os.environ["KERAS_BACKEND"] = options.backend
    # Two frameworks share the accelerator's memory, so neither may take all of it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    complete(options)
    found = conditions(options)
    if not options.json:
        print(", ".join(f"{key} {value}" for key, value in found.items()))
        print("images per second")
        print(ROW.format("network", "policy", "step", *COLUMNS, "ratio"))
    rows = []
    for name in options.networks:
        for policy in options.policies:
            try:
                measured = measure(name, policy, options)
            except UsageError as error:
                sys.exit(str(error))
            rows += measured
            if not options.json:
                for row in measured:
                    print(line(row), flush=True)
            gc.collect()
    if options.json:
        print(json.dumps({**found, "rows": rows}, indent=2))
        return
    apart = [row["logits_differ_by"] for row in rows if row["logits_differ_by"] is not None]
    if apart:
        print(f"In float32 the logits of both differ by at most {max(apart):.0e} of the largest.")


def line(row: dict) -> str:
    """Returns a row of the table."""
    speed, ratio = row["images_per_second"], row["ratio"]
    return ROW.format(
        row["network"],
        row["policy"],
        row["step"],
        *(f"{speed[key]:.1f}" if key in speed else "-" for key in COLUMNS),
        "-" if ratio is None else f"{ratio:.2f}",
    )


if __name__ == "__main__":
    main()
