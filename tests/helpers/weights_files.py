"""Weights files as others write them: layouts built by hand, for the tests of their readers."""

import h5py
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# Caffe's own schema, as far as trained weights need it: (name, number, type, label, options).
FLOAT, INT64, UINT32, INT32, STRING, ENUM, MESSAGE, DOUBLE = 2, 3, 13, 5, 9, 14, 11, 1
CAFFE = {
    "BlobShape": [("dim", 1, INT64, "packed")],
    "BlobProto": [
        ("num", 1, INT32, ""), ("channels", 2, INT32, ""), ("height", 3, INT32, ""),
        ("width", 4, INT32, ""), ("data", 5, FLOAT, "packed"), ("diff", 6, FLOAT, "packed"),
        ("shape", 7, "BlobShape", ""), ("double_data", 8, DOUBLE, "packed"),
    ],
    "LRNParameter": [
        ("local_size", 1, UINT32, ""), ("alpha", 2, FLOAT, ""), ("beta", 3, FLOAT, ""),
        ("norm_region", 4, INT32, ""), ("k", 5, FLOAT, ""),
    ],
    "TransformationParameter": [
        ("scale", 1, FLOAT, ""), ("mirror", 2, INT32, ""), ("crop_size", 3, UINT32, ""),
        ("mean_file", 4, STRING, ""), ("mean_value", 5, FLOAT, "repeated"),
    ],
    "ConvolutionParameter": [("num_output", 1, UINT32, ""), ("group", 5, UINT32, "")],
    "V1LayerParameter": [
        ("bottom", 2, STRING, "repeated"), ("top", 3, STRING, "repeated"), ("name", 4, STRING, ""),
        ("type", 5, INT32, ""), ("blobs", 6, "BlobProto", "repeated"),
        ("convolution_param", 10, "ConvolutionParameter", ""),
        ("lrn_param", 18, "LRNParameter", ""),
        ("transform_param", 36, "TransformationParameter", ""),
    ],
    "LayerParameter": [
        ("name", 1, STRING, ""), ("type", 2, STRING, ""), ("bottom", 3, STRING, "repeated"),
        ("top", 4, STRING, "repeated"), ("blobs", 7, "BlobProto", "repeated"),
        ("transform_param", 100, "TransformationParameter", ""),
        ("convolution_param", 106, "ConvolutionParameter", ""),
        ("lrn_param", 118, "LRNParameter", ""),
    ],
    "NetParameter": [
        ("name", 1, STRING, ""), ("layers", 2, "V1LayerParameter", "repeated"),
        ("input", 3, STRING, "repeated"), ("layer", 100, "LayerParameter", "repeated"),
    ],
}  # fmt: skip
VGG_MEAN = np.array([123.68, 116.779, 103.939], "float32")
BVLC_MEAN = np.array([122.67891434, 116.66876762, 104.00698793], "float32")
SIDE = 64  # leaves VGG a map of 2 x 2, so that the order of the flattened map matters
LRN = {"local_size": 5, "alpha": 1e-4, "beta": 0.75}  # k is left at Caffe's own 1
V1_TYPES = {"Data": 5, "Convolution": 4, "InnerProduct": 14, "LRN": 15, "Pooling": 17, "ReLU": 18}


def caffe_messages():
    """Caffe's messages by name, made from its field numbers and types."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe_of_the_tests.proto", package="caffe")
    file.syntax = "proto2"
    for name, fields in CAFFE.items():
        message = file.message_type.add(name=name)
        for field, number, kind, label in fields:
            entry = message.field.add(name=field, number=number)
            entry.label = 3 if label else 1
            entry.type = MESSAGE if isinstance(kind, str) else kind
            if isinstance(kind, str):
                entry.type_name = f".caffe.{kind}"
            if label == "packed":
                entry.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}"))
        for name in CAFFE
    }


MESSAGES = caffe_messages()


def caffemodel(layers, *, v1=False, double=False, name="Net") -> bytes:
    """A .caffemodel of (name, type, bottom, top, arrays, parameters) rows, or until 2015 (`v1`)."""
    net = MESSAGES["NetParameter"](name=name)
    for layer, kind, bottom, top, arrays, stated in layers:
        entry = (net.layers if v1 else net.layer).add(name=layer)
        entry.type = V1_TYPES[kind] if v1 else kind
        entry.bottom.append(bottom)
        entry.top.append(top)
        for array in arrays:
            blob = entry.blobs.add()
            (blob.double_data if double else blob.data).extend(np.asarray(array).ravel().tolist())
            if v1:
                padded = (1,) * (4 - array.ndim) + array.shape
                blob.num, blob.channels, blob.height, blob.width = padded
            else:
                blob.shape.dim.extend(array.shape)
        parameters = entry.transform_param if kind == "Data" else entry.lrn_param
        for key, value in (stated or {}).items():
            if isinstance(value, list):
                getattr(parameters, key).extend(value)
            else:
                setattr(parameters, key, value)
    return net.SerializeToString()


def binaryproto(image) -> bytes:
    """A mean image, (3, h, w) BGR, as Caffe's compute_image_mean writes it."""
    blob = MESSAGES["BlobProto"](num=1, channels=3, height=image.shape[1], width=image.shape[2])
    blob.data.extend(image.ravel().tolist())
    return blob.SerializeToString()


def old_applications(path, layers) -> None:
    """The .h5 that keras.applications hands out: weights only, with names from TensorFlow 1."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([name.encode() for name, *_ in layers])
        file.attrs["backend"] = b"tensorflow"
        for name, *arrays in layers:
            group = file.create_group(name)
            names = [f"{name}_{role}_1:0" for role in "Wb"][: len(arrays)]
            group.attrs["weight_names"] = np.array([text.encode() for text in names])
            for text, array in zip(names, arrays, strict=True):
                group[text] = array


def channels_first_rows(kernel, channels, height, width):
    """A dense kernel (h*w*c, units) as (units, c*h*w), index by index."""
    rows = np.empty_like(kernel)
    for c in range(channels):
        for h in range(height):
            for w in range(width):
                rows[c * height * width + h * width + w] = kernel[(h * width + w) * channels + c]
    return np.ascontiguousarray(rows.T)


def randomized(model, seed=0):
    """Random weights of He's variance, biases too, so that no activation dies out."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            scale = np.sqrt(2 / np.prod(kernel.shape[:-1]))
            layer.set_weights(
                [random.normal(0, scale, kernel.shape), random.normal(0, 1, bias.shape)]
            )
    return model


def assert_close(ours, theirs, tolerance):
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


def state_dict_of(model, places, dense, *, convolutional=False):
    """A state dictionary for the weights of `model`: OIHW, channels first where the map is flat."""
    state, places, dense = {}, iter(places), iter(dense)
    flat = model.get_layer("flatten").input.shape[1:]
    for layer in model.layers:
        if not layer.weights:
            continue
        kernel, bias = layer.get_weights()
        if kernel.ndim == 4:
            name, kernel = f"features.{next(places)}", kernel.transpose(3, 2, 0, 1)
        else:
            first = kernel.shape[0] == np.prod(flat)
            name = next(dense)
            kernel = channels_first_rows(kernel, flat[2], *flat[:2]) if first else kernel.T
            if convolutional and not name.startswith("head"):
                side = flat[0] if first else 1
                kernel = kernel.reshape(kernel.shape[0], -1, side, side)
        state[f"{name}.weight"], state[f"{name}.bias"] = np.ascontiguousarray(kernel), bias
    return state


def caffe_layers(model, *, pool_first=False, lrn=LRN):
    """The weights of one of our networks as Caffe's layers: BGR, OIHW, channels first."""
    flat = (
        model.get_layer("flatten").input.shape[1:]
        if any(x.name == "flatten" for x in model.layers)
        else None
    )
    rows, first = [], True
    for layer in model.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            if first:
                kernel, first = kernel[:, :, ::-1], False
            if kernel.ndim == 4:
                kind, kernel = "Convolution", kernel.transpose(3, 2, 0, 1)
            elif kernel.shape[0] == np.prod(flat):
                kind, kernel = "InnerProduct", channels_first_rows(kernel, flat[2], *flat[:2])
            else:
                kind, kernel = "InnerProduct", kernel.T
            name = layer.name.replace("block", "conv").replace("_conv", "_")
            name = {"fc1": "fc6", "fc2": "fc7", "predictions": "fc8"}.get(name, name)
            rows.append((name, kind, "x", name, [np.ascontiguousarray(kernel), bias], None))
        elif layer.name.startswith("norm"):
            number = layer.name[4:]
            bottom = f"pool{number}" if pool_first else f"conv{number}"
            rows.append((layer.name, "LRN", bottom, layer.name, [], lrn))
        elif layer.name.startswith("pool"):
            rows.append((layer.name, "Pooling", "x", layer.name, [], None))
    return rows


def arrays_by_name(model):
    """(kernel, bias) by layer as converters left them: HWIO, the first kernel BGR."""
    found = {}
    for layer in model.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            found[layer.name] = (kernel if found else kernel[:, :, ::-1], bias)
    return found


class PickleBomb:
    def __reduce__(self):
        return (print, ("this code ran",))


def write_small_alexnet(folder):
    """Writes the convolutions of a small AlexNet as small.npz, and converts that to small.keras."""
    from cnnkit.models import alexnet, open_weights
    from cnnkit.models.weights.convert import convert_weights

    model = randomized(alexnet(include_top=False, input_shape=(SIDE, SIDE, 3)))
    arrays = {}
    for name, (kernel, bias) in arrays_by_name(model).items():
        arrays[f"{name}_W"], arrays[f"{name}_b"] = kernel, bias
    np.savez(folder / "small.npz", **arrays)
    convert_weights(open_weights(folder / "small.npz"), "alexnet", folder / "small.keras")
    return folder
