"""The readers of foreign files as targets of `tests.fuzz`.

A target has valid tiny files as seeds, and a function of bytes that reads them as its reader does:
it returns a value or raises a `CnnkitError`. Bytes that stand inside an archive are packed into a
valid one first, so that the mutations reach their parser and not only the checksums around them.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SAVED = Path(__file__).resolve().parents[1] / "data" / "saved_by_0_1_0"
Check = Callable[[bytes], object]
# The seeds of a target, and its function.
Target = tuple[list[bytes], Check]


def _place() -> Path:
    """Return a folder in memory for the files of a target."""
    shared = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="fuzz-", dir=shared if shared.is_dir() else None))


def _copy(name: str) -> Path:
    """Return a copy of a folder or an unpacked archive that version 0.1.0 wrote."""
    place = _place() / name
    if (SAVED / f"{name}.zip").is_file():
        with zipfile.ZipFile(SAVED / f"{name}.zip") as archive:
            archive.extractall(place.parent)
    else:
        shutil.copytree(SAVED / name, place)
    return place


def _zip(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return packed.getvalue()


def _members(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _replacing(file: Path, read: Callable[[], object]) -> Check:
    """Return a function that writes its bytes to a file and reads it."""

    def check(data: bytes) -> object:
        file.write_bytes(data)
        return read()

    return check


# -- Weights ---------------------------------------------------------------------------------------


def _read_weights(file: Path) -> None:
    """Read what `cnnkit weights inspect` and the builders read."""
    from cnnkit.models import open_weights

    weights = open_weights(file)
    str(weights.parameter_count), weights.classes, weights.preprocessing.describe()
    for layer in weights.layers:
        for tensor in layer.tensors:
            next(tensor.blocks(), None)


def _weights(suffix: str, seeds: list[bytes], pack: Callable[[bytes], bytes] = bytes) -> Target:
    file = _place() / f"a{suffix}"

    def check(data: bytes) -> None:
        file.write_bytes(pack(data))
        _read_weights(file)

    return seeds, check


def keras_archive() -> Target:
    """A `.keras` archive as a whole."""
    return _weights(".keras", [(_copy("run") / "model.keras").read_bytes()])


def keras_config() -> Target:
    """The configuration in a `.keras` archive."""
    members = _members(_copy("run") / "model.keras")
    pack = lambda data: _zip({**members, "config.json": data})  # noqa: E731
    return _weights(".keras", [members["config.json"]], pack)


def keras_metadata() -> Target:
    """The metadata in a `.keras` archive."""
    members = _members(_copy("run") / "model.keras")
    pack = lambda data: _zip({**members, "metadata.json": data})  # noqa: E731
    return _weights(".keras", [members["metadata.json"]], pack)


def keras_model() -> Target:
    """The configuration in a `.keras` archive, as a model."""
    import keras

    from cnnkit.models import load_model

    members = _members(_copy("run") / "model.keras")
    file = _place() / "a.keras"

    def check(data: bytes) -> None:
        file.write_bytes(_zip({**members, "config.json": data}))
        keras.backend.clear_session()
        load_model(file)

    return [members["config.json"]], check


def keras_weights() -> Target:
    """The HDF5 file in a `.keras` archive."""
    members = _members(_copy("run") / "model.keras")
    pack = lambda data: _zip({**members, "model.weights.h5": data})  # noqa: E731
    return _weights(".keras", [members["model.weights.h5"]], pack)


def hdf5() -> Target:
    """HDF5 files, as Keras 2 and 3 write them."""
    import keras

    from tests.helpers.weights_files import old_applications

    place = _place()
    layers = [("conv1_1", np.ones((3, 3, 3, 2), "f4"), np.ones(2, "f4"))]
    old_applications(place / "old.h5", layers)
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3)])
    model.save(place / "model.h5")
    model.save_weights(place / "new.weights.h5")
    names = ("old.h5", "model.h5", "new.weights.h5")
    return _weights(".h5", [(place / name).read_bytes() for name in names])


def npz() -> Target:
    """An archive of arrays as a whole."""
    arrays = {"conv1__kernel": np.ones((3, 3, 3, 2), "f4"), "conv1__bias": np.ones(2, "f4")}
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    compressed = io.BytesIO()
    np.savez_compressed(compressed, **arrays)
    return _weights(".npz", [packed.getvalue(), compressed.getvalue()])


def _npy(array: np.ndarray) -> bytes:
    packed = io.BytesIO()
    np.save(packed, array, allow_pickle=True)
    return packed.getvalue()


def npz_member() -> Target:
    """An array in an archive."""
    bias = _npy(np.ones(2, "f4"))
    pack = lambda data: _zip({"conv1__kernel.npy": data, "conv1__bias.npy": bias})  # noqa: E731
    kernel = np.ones((3, 3, 3, 2))
    return _weights(".npz", [_npy(kernel.astype(kind)) for kind in ("f4", "f2", "f8", "i4")], pack)


def npy() -> Target:
    """A pickled dictionary of arrays, as Caffe's converters write it."""
    arrays = {"conv1": {"weights": np.ones((3, 3, 3, 2), "f4"), "biases": np.ones(2, "f4")}}
    lists = {"conv1": [np.ones((3, 3, 3, 2), "f4"), np.ones(2, "f4")]}
    return _weights(".npy", [_npy(np.array(one, object)) for one in (arrays, lists)])


def _state_dict(kind: bytes) -> bytes:
    """Return the pickle of a dictionary of two tensors as PyTorch writes it."""

    def tensor(key: bytes, shape: bytes, stride: bytes, count: bytes) -> bytes:
        storage = (
            b"(X\7\0\0\0storagectorch\n" + kind + b"\nX\1\0\0\0" + key + b"X\3\0\0\0cpuK" + count
        )
        return (
            b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"tQK\0(" + shape + b"t(" + stride
            + b"t\x89ccollections\nOrderedDict\n)RtR"
        )  # fmt: skip

    kernel = tensor(b"0", b"K\2K\3K\3K\3", b"K\x1bK\x09K\3K\1", b"\x36")
    bias = tensor(b"1", b"K\2", b"K\1", b"\2")
    return (
        b"\x80\x02ccollections\nOrderedDict\n)R("
        b"X\x11\0\0\0features.0.weight" + kernel + b"X\x0f\0\0\0features.0.bias" + bias + b"u."
    )  # fmt: skip


def pytorch_pickle() -> Target:
    """The pickle in a file of PyTorch."""
    pack = lambda data: _zip(  # noqa: E731
        {"a/data.pkl": data, "a/version": b"3", "a/data/0": bytes(216), "a/data/1": bytes(8)}
    )
    return _weights(".pth", [_state_dict(b"FloatStorage")], pack)


def pytorch_archive() -> Target:
    """A file of PyTorch as a whole, in both formats."""
    import pickle

    data = _state_dict(b"FloatStorage")
    members = {"a/data.pkl": data, "a/version": b"3", "a/data/0": bytes(216), "a/data/1": bytes(8)}
    head = [pickle.dumps(one, 2) for one in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    tail = pickle.dumps(["0", "1"], 2) + bytes(8) + bytes(216) + bytes(8) + bytes(8)
    return _weights(".pth", [_zip(members), b"".join(head) + data + tail])


def caffemodel() -> Target:
    """Networks of Caffe, with the old and the new layers."""
    from tests.helpers.weights_files import LRN, caffemodel

    arrays = [np.ones((2, 3, 3, 3), "f4"), np.ones(2, "f4")]
    layers = [
        ("data", "Data", "x", "data", [], {"mean_value": [1.0, 2.0, 3.0]}),
        ("conv1", "Convolution", "data", "conv1", arrays, None),
        ("norm1", "LRN", "conv1", "norm1", [], LRN),
    ]
    ways = ({}, {"v1": True}, {"double": True})
    return _weights(".caffemodel", [caffemodel(layers, **options) for options in ways])


def mean_image() -> Target:
    """The mean image of Caffe."""
    from cnnkit.models.weights.read_caffe import read_mean_image
    from tests.helpers.weights_files import binaryproto

    file = _place() / "mean.binaryproto"
    seeds = [binaryproto(np.ones((3, 4, 4), "f4"))]
    return seeds, _replacing(file, lambda: read_mean_image(file))


def safetensors() -> Target:
    """A file of safetensors."""
    from safetensors.numpy import save

    names = {"features.0.weight": np.ones((2, 3, 3, 3), "f4"), "features.0.bias": np.ones(2, "f4")}
    return _weights(".safetensors", [save(names), save(names, {"format": "pt"})])


# -- Folders that cnnkit writes --------------------------------------------------------------------


def _run_file(name: str, read: Callable[[Any], object]) -> Target:
    from cnnkit.run_folder import RunFolder

    run = RunFolder.open(_copy("run"))
    return [(run.path / name).read_bytes()], _replacing(run.path / name, lambda: read(run))


def run_config() -> Target:
    """config.json of a run."""
    return _run_file("config.json", lambda run: run.config)


def run_labels() -> Target:
    """labels.txt of a run."""
    return _run_file("labels.txt", lambda run: run.class_names)


def run_metrics() -> Target:
    """metrics.jsonl of a run."""
    return _run_file("metrics.jsonl", lambda run: run.metrics)


def run_environment() -> Target:
    """environment.json of a run."""
    return _run_file("environment.json", lambda run: run.environment)


def run_statistics() -> Target:
    """statistics.npz of a run."""
    return _run_file("statistics.npz", lambda run: run.statistics)


def run_stages() -> Target:
    """The file of the stages of a training."""
    from cnnkit.stage_folder import read_stages

    folder = _copy("parts")
    [file] = folder.iterdir()
    return [file.read_bytes()], _replacing(file, lambda: read_stages(folder))


def checkpoint() -> Target:
    """A checkpoint."""
    import keras

    from cnnkit.training.checkpoint import restore_checkpoint

    folder = _copy("run") / "checkpoints"
    [file] = folder.iterdir()
    with np.load(file) as archive:
        names = sorted(name for name in archive.files if archive[name].dtype != np.uint8)
        variables = [keras.Variable(archive[name], dtype=archive[name].dtype) for name in names]
    return [file.read_bytes()], _replacing(file, lambda: restore_checkpoint(folder, variables))


def results() -> Target:
    """Results of an evaluation."""
    from cnnkit.evaluation.result_store import read_results

    [file] = (_copy("run") / "evaluations").iterdir()
    return [file.read_bytes()], _replacing(file, lambda: read_results(file))


def _store_file(name: str) -> Target:
    from cnnkit.features import load_features

    folder = _copy("features")
    return [(folder / name).read_bytes()], _replacing(folder / name, lambda: load_features(folder))


def store_index() -> Target:
    """The index of a feature store."""
    return _store_file("index.json")


def store_names() -> Target:
    """The names of a part of a feature store."""
    return _store_file("features-00000.json")


def store_values() -> Target:
    """The values of a part of a feature store."""
    return _store_file("features-00000.npy")


def classifier() -> Target:
    """The description of a saved classifier."""
    from cnnkit.transfer import load_linear_probe

    folder = _copy("transfer_svm")
    file = folder / "transfer.json"
    return [file.read_bytes()], _replacing(file, lambda: load_linear_probe(folder))


def skops_schema() -> Target:
    """The schema in the archive of a saved classifier."""
    from cnnkit.transfer import load_linear_probe

    folder = _copy("transfer_svm")
    file = folder / "pipeline.skops"
    members = _members(file)

    def check(data: bytes) -> None:
        file.write_bytes(_zip({**members, "schema.json": data}))
        load_linear_probe(folder)

    return [members["schema.json"]], check


def skops_archive() -> Target:
    """The archive of a saved classifier as a whole."""
    from cnnkit.transfer import load_linear_probe

    folder = _copy("transfer_softmax")
    file = folder / "pipeline.skops"
    return [file.read_bytes()], _replacing(file, lambda: load_linear_probe(folder))


# -- Datasets, lists and configurations ------------------------------------------------------------


def labels() -> Target:
    """A file of class names."""
    from cnnkit.cli.console import read_labels

    file = _place() / "labels.txt"
    seeds = ["a\nb\n", "\ufeffa\r\nb\r\n", "hund\nkatze, groß\n"]
    encoded = [text.encode() for text in seeds] + [seeds[0].encode("utf-16")]
    return encoded, _replacing(file, lambda: read_labels(file))


def shard_index() -> Target:
    """The description in the index of shards."""
    from cnnkit.data.sources.tfrecord import load_shards

    folder = _copy("shards")
    with np.load(folder / "index.npz") as archive:
        arrays = dict(archive)

    def check(data: bytes) -> None:
        np.savez(folder / "index.npz", **{**arrays, "about": np.frombuffer(data, np.uint8)})
        load_shards(str(folder))

    return [arrays["about"].tobytes()], check


def shard_places() -> Target:
    """The locations in the index of shards, and the images at them."""
    from cnnkit.data.sources.tfrecord import load_shards

    folder = _copy("shards")
    with np.load(folder / "index.npz") as archive:
        arrays = dict(archive)
    places = arrays["train/places"]

    def check(data: bytes) -> None:
        numbers = np.frombuffer(data[: len(data) // 32 * 32], np.int64).reshape(-1, 4)
        np.savez(folder / "index.npz", **{**arrays, "train/places": numbers})
        split = load_shards(str(folder)).splits["train"]
        for index in range(min(3, len(split))):
            _image_or_refusal(lambda index=index: split.load_image(index))

    return [places.astype(np.int64).tobytes()], check


def shard_records() -> Target:
    """The records of a shard."""
    from cnnkit.data.sources.tfrecord import load_shards

    folder = _copy("shards")
    file = folder / "train-00000.tfrecord"
    whole = file.read_bytes()

    def check(data: bytes) -> None:
        file.write_bytes(data[: len(whole)].ljust(len(whole), b"\0"))
        split = load_shards(str(folder)).splits["train"]
        for index in range(min(3, len(split))):
            _image_or_refusal(lambda index=index: split.load_image(index))

    return [whole], check


def voc_list() -> Target:
    """A list of PASCAL VOC."""
    from cnnkit.data.sources.voc import load_voc

    folder = _place()
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (folder / "JPEGImages").mkdir()
    for name in "abc":
        (folder / "JPEGImages" / f"{name}.jpg").touch()
    text = b"a 1\nb -1\nc 0\n"
    for label in ("cat", "dog"):
        for split in ("trainval", "test"):
            (lists / f"{label}_{split}.txt").write_bytes(text)
    return [text], _replacing(lists / "cat_test.txt", lambda: load_voc(folder))


def _boxes(name: str, seed: str) -> Target:
    """Boxes as `boxes:PATH` reads them, without their images."""
    from cnnkit._untrusted.box_files import read_boxes

    file = _place() / name
    file.parent.mkdir(exist_ok=True)
    path = file.parent.parent if file.suffix == ".xml" else file
    return [seed.encode()], _replacing(file, lambda: read_boxes(path))


def boxes_csv() -> Target:
    """A table of boxes."""
    return _boxes("a.csv", 'file,class,left,top,right,bottom\na.jpg,"a ""cat""",1,2,3.5,4\n')


def boxes_coco() -> Target:
    """A document of COCO."""
    text = (
        '{"images": [{"id": 5, "file_name": "a.jpg"}], "categories": [{"id": 3, "name": "cat"}],'
        ' "annotations": [{"image_id": 5, "category_id": 3, "bbox": [1, 2, 10, 20], "iscrowd": 0}]}'
    )
    return _boxes("a.json", text)


def boxes_voc() -> Target:
    """An XML file of PASCAL VOC."""
    text = (
        '<?xml version="1.0"?><annotation><filename>a.jpg</filename><object><name>cat</name>'
        "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object></annotation>"
    )
    return _boxes("Annotations/a.xml", text)


def imagenet_labels() -> Target:
    """The labels of ImageNet's validation images."""
    from cnnkit.data.sources import imagenet

    folder = _place()
    _write_meta(folder / "meta.mat")
    file, synsets = folder / "val_labels.txt", ["n01440764", "n01443537"]
    seeds = [b"n01440764\nn01443537\n", b"a.JPEG 0\nb.JPEG 1\n", b"1\n2\n"]
    names = ["a.JPEG", "b.JPEG"]
    return seeds, _replacing(file, lambda: imagenet._validation_labels(file, names, synsets))


def _write_meta(file: Path) -> None:
    from scipy.io import savemat

    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O")]
    savemat(file, {"synsets": np.array([(1, "n01440764"), (2, "n01443537")], kind)})


def imagenet_meta() -> Target:
    """The development kit's numbers of ImageNet's synsets."""
    from cnnkit.data.sources import imagenet

    file = _place() / "meta.mat"
    _write_meta(file)
    index_of = {"n01440764": 0, "n01443537": 1}
    seeds = [file.read_bytes()]
    return seeds, _replacing(file, lambda: imagenet._read_development_kit(file, index_of))


def models_config() -> Target:
    """A server's models.config."""
    from cnnkit.server.model_config import read_models_config

    file = _place() / "models.config"
    seeds = [
        b'model_config_list { config { name: "a" base_path: "/m/a" model_platform: "tensorflow"\n'
        b"model_version_policy { specific { versions: 1 versions: 2 } }\n"
        b'version_labels { key: "stable" value: 1 } } }',
        b'model_config_list { config { name: "a" base_path: "a" } }',
    ]
    return seeds, _replacing(file, lambda: read_models_config(file))


# -- Images ----------------------------------------------------------------------------------------


def _image_or_refusal(read: Callable[[], object]) -> None:
    """Read an image: TensorFlow's refusal of a graph's checks is a refusal."""
    import tensorflow as tf

    try:
        read()
    except tf.errors.InvalidArgumentError:
        return


def _image_seeds() -> list[bytes]:
    from tests.helpers.image_formats import image_formats

    found = image_formats()
    files = found.values() if isinstance(found, dict) else [one[-1] for one in found]
    return [bytes(data) for data in files]


def image() -> Target:
    """An image file, decoded as training does."""
    import tensorflow as tf

    from cnnkit.data import decode_image

    def check(data: bytes) -> None:
        _image_or_refusal(lambda: decode_image(tf.constant(data)))

    return _image_seeds(), check


def image_traits() -> Target:
    """The traits of an image file that a dataset's validation reports."""
    import tensorflow as tf

    from cnnkit.data.decode import find_traits

    def check(data: bytes) -> None:
        _image_or_refusal(lambda: find_traits(tf.constant(data)))

    return _image_seeds(), check


def image_header() -> Target:
    """The header of an image that a client sent."""
    import tensorflow as tf

    from cnnkit.export.image_header import ImageLimits, validate_image_bytes

    traced = tf.function(
        lambda data: validate_image_bytes(data, ImageLimits()),
        input_signature=[tf.TensorSpec([], tf.string)],
        autograph=False,
    ).get_concrete_function()

    def check(data: bytes) -> None:
        _image_or_refusal(lambda: traced(tf.constant(data)))

    return _image_seeds(), check


# -- Answers of a server ---------------------------------------------------------------------------


def metadata() -> Target:
    """The signatures and statuses that a server answers."""
    from google.protobuf.message import DecodeError

    from cnnkit.client.metadata import signatures, version_statuses
    from cnnkit.wire import cnnkit_serving_pb2 as pb

    definitions = pb.SignatureDefMap()
    taken = definitions.signature_def["images"].inputs["images"]
    taken.dtype = pb.DT_FLOAT
    for size in (-1, 4, 4, 3):
        taken.tensor_shape.dim.add(size=size)
    status = pb.GetModelStatusResponse()
    one = status.model_version_status.add(version=1, state=30)
    one.status.error_message = "none"

    def check(data: bytes) -> None:
        for read in (signatures, version_statuses):
            try:
                read(data)
            except DecodeError:
                continue

    return [definitions.SerializeToString(), status.SerializeToString()], check


def compressed_request() -> Target:
    """A compressed message of a client."""
    import gzip
    import zlib

    from cnnkit.server.memory_budget import MemoryBudget
    from cnnkit.server.status_error import StatusError
    from cnnkit.server.unpack import unpack_message

    budget = MemoryBudget(1 << 22)

    def check(data: bytes) -> None:
        try:
            with budget.open() as memory:
                assert len(unpack_message(data, memory, 1 << 20)) <= 1 << 20
        except StatusError:
            pass
        assert budget.used == 0

    return [gzip.compress(b"a" * 3000), zlib.compress(b"a" * 3000), b"\x08\1"], check


def certificate() -> Target:
    """The certificate of a client, which TLS has let through."""
    import ssl

    import trustme

    from cnnkit.server.client_certificate import has_extended_key_usage

    issued = trustme.CA().issue_cert("client.example").cert_chain_pems[0].bytes()

    def check(data: bytes) -> None:
        has_extended_key_usage(ssl.DER_cert_to_PEM_cert(data).encode())

    return [ssl.PEM_cert_to_DER_cert(issued.decode())], check


READERS: dict[str, Callable[[], Target]] = {
    one.__name__.replace("_", "-"): one
    for one in (
        keras_archive, keras_config, keras_metadata, keras_model, keras_weights, hdf5, npz,
        npz_member, npy, pytorch_pickle, pytorch_archive, caffemodel, mean_image, safetensors,
        run_config, run_labels, run_metrics, run_environment, run_statistics, run_stages,
        checkpoint, results, store_index, store_names, store_values, classifier, skops_schema,
        skops_archive, labels, shard_index, shard_places, shard_records, voc_list,
        boxes_csv, boxes_coco, boxes_voc,
        imagenet_labels, imagenet_meta, models_config, image, image_traits, image_header, metadata,
        compressed_request, certificate,
    )
}  # fmt: skip
