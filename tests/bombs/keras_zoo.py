"""Bombs in the formats of Keras: HDF5 and the configurations of models."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import h5py
import numpy as np

from tests.bombs.zoo import (
    SECRET,
    SECRET_HDF5,
    bomb,
    deep_json,
    write_zip,
)


def keras_config(layers: list[dict] | None = None, **changes) -> bytes:
    """Return the configuration of a sequential model."""
    if layers is None:
        layers = [layer("Conv2D", name="c", filters=1, kernel_size=[3, 3]), layer("Flatten")]
    first = layer("InputLayer", batch_shape=[None, 8, 8, 3], name="in")
    config = {"name": "m", "layers": [first, *layers]}
    document = {"module": "keras", "class_name": "Sequential", "config": config}
    return json.dumps({**document, "registered_name": None, "build_config": {}, **changes}).encode()


def layer(kind: str, module: str = "keras.layers", registered: str | None = None, **config):
    """Return the configuration of a layer."""
    whole = {"module": module, "class_name": kind, "config": config}
    return {**whole, "registered_name": registered}


def weights_h5(fill=lambda file: None) -> bytes:
    """Return a `model.weights.h5`."""
    with tempfile.NamedTemporaryFile() as place:
        with h5py.File(place.name, "w") as file:
            variables = file.create_group("layers/conv2d/vars")
            variables["0"] = np.zeros((3, 3, 3, 1), "f4")
            variables["1"] = np.zeros(1, "f4")
            fill(file)
        return Path(place.name).read_bytes()


METADATA = b'{"keras_version": "3.15.0", "date_saved": "2026-01-01@00:00:00"}'


def write_keras(path: Path, config: bytes, weights: bytes | None = None) -> None:
    """Write a `.keras` file."""
    members = {"metadata.json": METADATA, "config.json": config}
    write_zip(path, {**members, "model.weights.h5": weights or weights_h5()})


def hdf5(*names: str, harmless: bool = False):
    """Add a function that fills an HDF5 file, as a file and inside a `.keras`."""

    def add(fill):
        def write(path):
            kernel = lambda file: fill(file, path.parent / SECRET)  # noqa: E731
            data = weights_h5(kernel)
            if path.suffix == ".keras":
                write_keras(path, keras_config(), data)
            else:
                path.write_bytes(data)

        for name in names:
            bomb("weights", f"{name}.h5", f"{name}.keras", harmless=harmless)(write)
        return fill

    return add


@hdf5("external")
def _external_storage(file, secret):
    del file["layers/conv2d/vars/0"]
    external = [(str(secret), 0, 108)]
    file.create_dataset("layers/conv2d/vars/0", (3, 3, 3, 1), "f4", external=external)


@hdf5("external-link")
def _external_link(file, secret):
    del file["layers/conv2d/vars/0"]
    file["layers/conv2d/vars/0"] = h5py.ExternalLink(str(secret.with_name(SECRET_HDF5)), "/a")


@hdf5("virtual")
def _virtual(file, secret):
    del file["layers/conv2d/vars/0"]
    layout = h5py.VirtualLayout((3, 3, 3, 1), "f4")
    layout[:] = h5py.VirtualSource(str(secret.with_name(SECRET_HDF5)), "a", (3, 3, 3, 1))
    file.create_virtual_dataset("layers/conv2d/vars/0", layout)


@hdf5("soft-link", harmless=True)
def _soft_link(file, secret):
    file["layers/conv2d/vars/2"] = h5py.SoftLink("/layers/conv2d/vars/0")
    file["layers/loop"] = h5py.SoftLink("/layers/loop")


@hdf5("chunks")
def _chunks(file, secret):
    del file["layers/conv2d/vars/0"]
    shape, chunks = (3, 3, 3, 10**9), (1, 1, 1, 1000)
    file.create_dataset("layers/conv2d/vars/0", shape, "f4", chunks=chunks, fillvalue=1)


@hdf5("one-chunk")
def _one_chunk(file, secret):
    del file["layers/conv2d/vars/0"]
    shape = (3, 3, 3, 30_000_000)
    data = file.create_dataset(
        "layers/conv2d/vars/0", shape, "f4", chunks=shape, compression="gzip"
    )
    data.id.write_direct_chunk((0, 0, 0, 0), b"x\x9c\x03\x00\x00\x00\x00\x01")


@hdf5("unwritten")
def _unwritten(file, secret):
    del file["layers/conv2d/vars/0"]
    file.create_dataset("layers/conv2d/vars/0", (3, 3, 3, 10**9), "f4")


@hdf5("mean", harmless=True)
def _mean(file, secret):
    file.create_dataset("mean", (3, 30_000, 30_000), "f4", chunks=(1, 1000, 1000))
    file.create_dataset("layers/normalization/vars/0", (3, 30_000, 30_000), "f4", chunks=True)


@hdf5("nested", harmless=True)
def _nested(file, secret):
    group = file["layers"]
    for _ in range(20_000):
        group = group.create_group("g")


@hdf5("flat", harmless=True)
def _flat(file, secret):
    for number in range(30_000):
        file["layers"].create_group(f"{number}")


@hdf5("cycle", harmless=True)
def _cycle(file, secret):
    file["layers/again"] = file["/"]


@hdf5("strings", harmless=True)
def _strings(file, secret):
    file["layers/conv2d/vars/2"] = np.array(["a" * 1000], object)
    file.attrs["text"] = "a" * 60_000
    kinds = np.dtype([("a", "f4"), ("b", h5py.string_dtype())])
    file.create_dataset("layers/conv2d/vars/3", (2,), kinds)


@hdf5("references", harmless=True)
def _references(file, secret):
    kind = h5py.ref_dtype
    file.create_dataset("layers/conv2d/vars/2", (2,), kind)


@bomb("weights", "deep-config.h5", "nan-config.h5", "utf8-config.h5")
def _hdf5_config(path):
    text = {
        "deep": deep_json(5_000), "nan": b'{"class_name": NaN, "config": Infinity}',
        "utf8": b'{"class_name": "\xff\xfe", "config": {}}',
    }[path.name.partition("-")[0]]  # fmt: skip

    def fill(file):
        file.attrs["keras_version"] = "3.15.0"
        file.attrs["layer_names"] = np.array([b"layers"] * 100)
        file.attrs["model_config"] = np.void(text) if b"\xff" in text else text.decode()

    path.write_bytes(weights_h5(fill))


CONV = {"name": "c", "kernel_size": [3, 3], "filters": 1}
CONFIGS = {
    "filters": [layer("Conv2D", **{**CONV, "filters": 900_000_000})],
    "kernel": [layer("Conv2D", **{**CONV, "kernel_size": [10**9, 10**9], "padding": "same"})],
    "units": [layer("Flatten"), layer("Dense", units=10**12)],
    "upsampling": [layer("UpSampling2D", size=[10**6, 10**6]), layer("Conv2D", **CONV)],
    "padding": [layer("ZeroPadding2D", padding=[[10**9, 10**9], [10**9, 10**9]])],
    "strides": [layer("Conv2D", **CONV, strides=[0, 0])],
    "negative": [layer("Conv2D", **{**CONV, "filters": -5})],
    "infinite": [layer("Rescaling", scale=float("inf"), offset=float("nan"))],
    "layers": [layer("Conv2D", **{**CONV, "name": f"c{n}"}, padding="same") for n in range(5000)],
    "mean": [layer("SubtractMean", "cnnkit.layers", "cnnkit>SubtractMean", mean=[0.0] * 10**6)],
    "lambda": [layer("Lambda", function={"class_name": "__lambda__", "config": {
        "code": "4wEAAAAAAAAAAAAAAAAAAAAA", "defaults": None, "closure": None}})],
    "system": [layer("system", "os", command="touch hacked")],
    "download": [layer("get_file", "keras.utils", origin="http://127.0.0.1/a", fname="a")],
    "vocabulary": [layer("StringLookup", vocabulary=SECRET)],
    "saved-model": [layer("TFSMLayer", filepath=SECRET, call_endpoint="serve")],
    "torch": [layer("TorchModuleWrapper", module={
        "class_name": "__module__", "config": "80027d2e"})],
    "module": [layer("Popen", "subprocess", args=["touch", "hacked"])],
    "missing": [layer("Conv2D", "nowhere.at.all")],
    "type": [{"module": [1], "class_name": {"a": 2}, "config": 7}],
    "number": [17],
}  # fmt: skip
RAW_CONFIGS = {
    "deep": deep_json(),
    "utf8": b'{"class_name": "\xff\xfe"}',
    "nul": b'{"class_name": "a\\u0000b", "module": "keras\\u0000"}',
    "list": b"[]",
    "nan": b"NaN",
    "digits": b"1" * 100_000,
    "twice": b'{"class_name": "Sequential", "class_name": "Model", "config": 1}',
    "surrogate": b'{"class_name": "\\ud800", "config": {"name": "\\udfff"}}',
}


# As weights these may be read: the configuration is not needed then.
NOT_NEEDED = (*CONFIGS, "nul", "surrogate")


@bomb("weights", *(f"{name}.config.keras" for name in NOT_NEEDED), harmless=True)
@bomb("weights", *(f"{name}.config.keras" for name in RAW_CONFIGS if name not in NOT_NEEDED))
def _configs(path):
    name = path.name.partition(".")[0]
    write_keras(path, RAW_CONFIGS.get(name) or keras_config(CONFIGS[name]))


@bomb("weights", "input.config.keras", harmless=True)
def _input(path):
    text = keras_config().replace(b"[null, 8, 8, 3]", b"[null, 1000000, 1000000, 3]")
    write_keras(
        path, text.replace(b'"Flatten"', b'"Dense"').replace(b'{}, "reg', b'{"units":9}, "reg')
    )


@bomb("weights", "compile.config.keras", harmless=True)
def _compile(path):
    write_keras(path, keras_config(compile_config={"loss": layer("system", "os"), "optimizer": 5}))
