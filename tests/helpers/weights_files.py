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
    "ConvolutionParameter": [("num_output", 1, UINT32, ""), ("group", 5, UINT32, "")],
    "V1LayerParameter": [
        ("bottom", 2, STRING, "repeated"), ("top", 3, STRING, "repeated"), ("name", 4, STRING, ""),
        ("type", 5, INT32, ""), ("blobs", 6, "BlobProto", "repeated"),
        ("convolution_param", 10, "ConvolutionParameter", ""),
        ("lrn_param", 18, "LRNParameter", ""),
    ],
    "LayerParameter": [
        ("name", 1, STRING, ""), ("type", 2, STRING, ""), ("bottom", 3, STRING, "repeated"),
        ("top", 4, STRING, "repeated"), ("blobs", 7, "BlobProto", "repeated"),
        ("convolution_param", 106, "ConvolutionParameter", ""),
        ("lrn_param", 118, "LRNParameter", ""),
    ],
    "NetParameter": [
        ("name", 1, STRING, ""), ("layers", 2, "V1LayerParameter", "repeated"),
        ("input", 3, STRING, "repeated"), ("layer", 100, "LayerParameter", "repeated"),
    ],
}  # fmt: skip
V1_TYPES = {"Convolution": 4, "InnerProduct": 14, "LRN": 15, "Pooling": 17, "ReLU": 18}


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
    """A .caffemodel of (name, type, bottom, top, arrays, lrn) rows, new or until 2015 (`v1`)."""
    net = MESSAGES["NetParameter"](name=name)
    for layer, kind, bottom, top, arrays, lrn in layers:
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
        if lrn is not None:
            for key, value in lrn.items():
                setattr(entry.lrn_param, key, value)
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
