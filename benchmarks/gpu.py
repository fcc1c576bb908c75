"""The networks of the papers on a GPU, Keras on JAX beside PyTorch, in at most 8 minutes.

    bash benchmarks/gpu.sh --output gpu.json

Times AlexNet, ZFNet and VGG-16, forward and a step of training, as networks.py does; the share of
local response normalization in a step of training, from the same network without it; and the
deconvnet's pass beside the forward pass to the same layer. What the time does not suffice for is
left out and named. The search for the strongest images and `cnnkit.visualize.deconvnet` need
TensorFlow and are not timed here. `--tiny` shows on a CPU, in seconds, that everything runs.
"""

from timing import interleaved  # isort: skip  (quiets TensorFlow before it is imported)

import argparse
import datetime
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import networks
from keras_networks import STEPS, jax_projections
from torch_networks import PEERS

NETWORKS = ("alexnet", "zfnet", "vgg16")
NORMALIZED = ("alexnet", "zfnet")
PROJECTED = {"alexnet": "conv5", "zfnet": "conv5", "vgg16": "block5_conv3"}
TINY = {"batch": 2, "image_size": 64, "rounds": 1, "peers": PEERS[:1]}


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument(
        "--policies", nargs="+", choices=networks.POLICIES, default=networks.POLICIES[::-1]
    )
    parser.add_argument("--backend", choices=("jax", "tensorflow"), default="jax", help="of Keras")
    parser.add_argument("--peers", nargs="+", choices=PEERS, help="ways to run PyTorch's network")
    parser.add_argument("--batch", type=int, default=128, metavar="N", help="images in a batch")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="the median counts")
    parser.add_argument(
        "--seconds", type=float, default=420, metavar="S", help="begin nothing after so long"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the results as JSON")
    parser.add_argument(
        "--tiny", action="store_true", help="two images of 64 pixels, to see that it runs"
    )
    options = parser.parse_args()
    options.image_size = None
    if options.tiny:
        vars(options).update(TINY)
    return options


def normalization(name: str, policy: str, options: argparse.Namespace) -> list[dict]:
    """Compares a step of training with one of the network without normalization."""
    calls = {}
    for key, lrn in (("with", True), ("without", False)):
        model = networks.network(name, policy, options, lrn=lrn)
        steps = STEPS[options.backend](model, *networks.batch_for(model, options.batch))
        calls[key] = networks.repeated(steps, "train", options.repeats)
    seconds = interleaved(calls, options.rounds)
    share = 1 - seconds["without"] / seconds["with"]
    return [{"network": name, "policy": policy, "share_of_training": share}]


def projections(name: str, policy: str, options: argparse.Namespace) -> list[dict]:
    """Compares the deconvnet's pass with the forward pass to the same layer."""
    model, layer = networks.network(name, policy, options), PROJECTED[name]
    forward, project = jax_projections(model, layer, networks.batch_for(model, options.batch)[0])
    seconds = interleaved({"forward": forward, "project": project}, options.rounds)
    speed = {key: options.batch / value for key, value in seconds.items()}
    times = seconds["project"] / seconds["forward"]
    found = {"network": name, "layer": layer, "policy": policy}
    return [{**found, "images_per_second": speed, "times_the_forward_pass": times}]


def work(options: argparse.Namespace) -> list[tuple[str, str, str, Callable]]:
    """Returns what is measured, in order: section, network, policy and the function."""
    listed: list[tuple[str, str, str, Callable]] = []
    for policy in options.policies:
        listed += [("networks", name, policy, networks.measure) for name in options.networks]
        names = [name for name in options.networks if name in NORMALIZED]
        listed += [("normalization", name, policy, normalization) for name in names]
        if policy == "mixed_bfloat16" and options.backend == "jax":
            listed += [("deconvnet", name, "float32", projections) for name in options.networks]
    return listed


def measured(options: argparse.Namespace, show: Callable[[str], object]) -> dict:
    """Measures until the time is over; every result is written to the file at once."""
    start = time.monotonic()
    found = {**networks.conditions(options), "date": datetime.date.today().isoformat()}
    found |= {"networks": [], "normalization": [], "deconvnet": [], "left_out": []}
    for section, name, policy, function in work(options):
        title = f"{section} {name} {policy}"
        if time.monotonic() - start > options.seconds:
            found["left_out"].append(title)
            continue
        try:
            found[section] += function(name, policy, options)
        except RuntimeError as error:  # the accelerator's memory, say: the rest still counts
            print(f"{title}: {error}", file=sys.stderr)
            found["left_out"].append(title)
        gc.collect()
        show(f"{time.monotonic() - start:6.0f} s  {title}")
        if options.output is not None:
            options.output.write_text(json.dumps(found, indent=1) + "\n")
    return found


def tables(found: dict) -> str:
    """Returns the results as Markdown."""
    columns = " | ".join(("cnnkit", *PEERS))
    lines = [
        f"{found['card']}, batch {found['batch']}, {found['date']}, "
        + ", ".join(f"{name} {version}" for name, version in found["versions"].items()),
        "",
        f"| network | policy | step, images/s | {columns} | to the fastest | memory, GiB |",
        "|---|---|---|" + "---|" * (len(PEERS) + 3),
    ]
    for row in found["networks"]:
        speed, memory = row["images_per_second"], row["peak_memory_of_training"]
        cells = [f"{speed[key]:,.0f}" if key in speed else "-" for key in ("cnnkit", *PEERS)]
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
        held = [value / 2**30 for value in memory.values() if value is not None]
        held = ", ".join(f"{value:.1f}" for value in held) if row["step"] == "train" else ""
        cells = [row["network"], row["policy"], row["step"], *cells, ratio, held]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    lines += [
        f"- {row['network']}, {row['policy']}: normalization takes"
        f" {100 * row['share_of_training']:.1f} % of a step of training"
        for row in found["normalization"]
    ]
    lines += [
        f"- {row['network']}, {row['policy']}: the deconvnet's pass from {row['layer']} takes"
        f" {row['times_the_forward_pass']:.1f} times the forward pass,"
        f" {row['images_per_second']['project']:,.0f} images/s"
        for row in found["deconvnet"]
    ]
    lines += [f"- not measured: {title}" for title in found["left_out"]]
    return "\n".join(lines)


def main() -> None:
    """Measures and prints."""
    options = arguments()
    missing = [name for name in ("keras", options.backend) if find_spec(name) is None]
    if missing:
        sys.exit(f"{sys.executable} lacks {' and '.join(missing)}: set PYTHON to one that has them")
    os.environ["KERAS_BACKEND"] = options.backend
    # Two frameworks share the accelerator's memory, so neither may take all of it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    networks.complete(options)
    print(tables(measured(options, print)))


if __name__ == "__main__":
    main()
