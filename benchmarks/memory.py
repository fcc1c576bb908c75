"""Peak memory of loading VGG-16 from each kind of weights file, as a multiple of the weights.

Every kind is measured in a process of its own: the highest memory it has had, less what it had
after importing TensorFlow. The file's pages count while they are mapped. Needs 1 GB of disk.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import timing  # noqa: F401  (quiets TensorFlow before it is imported)

WEIGHTS_BYTES = 4 * 138_357_544
# What each kind may take: the file's kind decides whether its parts can be read one by one.
BOUNDS = {".h5": 2.2, ".keras": None, ".safetensors": 2.2, ".pth": 2.2, ".caffemodel": 3.3}


def write(kind: str, path: Path) -> None:
    """Writes VGG-16 with random weights as a file of one kind."""
    import numpy as np

    from cnnkit import vgg16

    if kind == ".h5":
        import keras

        keras.applications.VGG16(weights=None).save(path)
        return
    model = vgg16()
    if kind == ".keras":
        model.save(path)
        return
    layers = [layer for layer in model.layers if layer.weights]
    kernels = {layer.name: layer.kernel.numpy() for layer in layers}
    biases = {layer.name: layer.bias.numpy() for layer in layers}
    kernels["fc1"] = kernels["fc1"].reshape(7, 7, 512, 4096).transpose(2, 0, 1, 3)
    kernels["fc1"] = kernels["fc1"].reshape(25088, 4096)
    if kind == ".caffemodel":
        from cnnkit.models.weights.caffe_weights_pb2 import Net

        net = Net()
        for name, kernel in kernels.items():
            stored = net.layers.add(name=name.replace("block", "conv").replace("_conv", "_"))
            axes = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
            for values in (kernel.transpose(axes), biases[name]):
                blob = stored.blobs.add(floats=np.ascontiguousarray(values).tobytes())
                blob.shape.dim.extend(values.shape)
        path.write_bytes(net.SerializeToString())
        return
    places = iter((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28))
    dense = iter((0, 3, 6))
    state = {}
    for name, kernel in kernels.items():
        if kernel.ndim == 4:
            prefix, kernel = f"features.{next(places)}", kernel.transpose(3, 2, 0, 1)
        else:
            prefix, kernel = f"classifier.{next(dense)}", kernel.T
        state[f"{prefix}.weight"] = np.ascontiguousarray(kernel)
        state[f"{prefix}.bias"] = biases[name]
    if kind == ".safetensors":
        from safetensors.numpy import save_file

        save_file(state, path)
        return
    import torch

    torch.save({name: torch.from_numpy(values) for name, values in state.items()}, path)


def load(path: Path) -> None:
    """Loads the file into VGG-16 and prints the peak, in bytes above TensorFlow."""
    import tensorflow  # noqa: F401

    from cnnkit import vgg16

    before = _status("VmRSS")
    vgg16(weights=path)
    print(_status("VmHWM") - before)


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"no {field} in /proc/self/status")


def _child(action: str, *arguments: str) -> str:
    command = [sys.executable, __file__, action, *arguments]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def main() -> None:
    """Measures and prints."""
    print("\nLoading VGG-16, peak memory as a multiple of its weights (553 MB)")
    for kind, bound in BOUNDS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"vgg16{kind}"
            try:
                _child("write", kind, str(path))
            except subprocess.CalledProcessError:
                print(f"  {kind:<14} could not be written (PyTorch is not installed?)")
                continue
            ratio = int(_child("load", str(path)).split()[-1]) / WEIGHTS_BYTES
        print(f"  {kind:<14} {ratio:5.2f}x" + ("" if bound is None else f"   bound {bound}x"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", nargs="?", choices=("write", "load"))
    parser.add_argument("arguments", nargs="*")
    args = parser.parse_args()
    if args.action == "write":
        write(args.arguments[0], Path(args.arguments[1]))
    elif args.action == "load":
        load(Path(args.arguments[0]))
    else:
        main()
