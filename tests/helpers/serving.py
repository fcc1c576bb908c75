"""A model small enough to be computed in NumPy, and calls of it."""

from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf

from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.tensors import decode_tensor, to_tensor_proto

COLORS = ("red", "green", "blue", "dark")
SIZE = 8
TOP = 3
GRAY = np.full((1, SIZE, SIZE, 3), 40, np.float32)


class Colors(tf.Module):
    """Softmax over the mean of each channel divided by `scale`, and 0 for "dark"."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = tf.Variable(scale)

    def probabilities(self, images):
        means = tf.reduce_mean(images, axis=(1, 2))
        logits = tf.concat([means / self.scale, tf.zeros_like(means[:, :1])], axis=1)
        return tf.nn.softmax(logits), means

    def decode(self, image_bytes):
        def one(encoded):
            image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
            return tf.image.resize(image, (SIZE, SIZE))

        images = tf.map_fn(one, image_bytes, fn_output_signature=tf.float32)
        return tf.ensure_shape(images, (None, SIZE, SIZE, 3))

    @tf.function(input_signature=[tf.TensorSpec((None, SIZE, SIZE, 3), tf.float32, "images")])
    def serving_default(self, images):
        images = tf.ensure_shape(images, (None, SIZE, SIZE, 3))
        probabilities, means = self.probabilities(images)
        return {"probabilities": probabilities, "means": means}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")])
    def serving_bytes(self, image_bytes):
        return {"probabilities": self.probabilities(self.decode(image_bytes))[0]}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")])
    def classify_bytes(self, image_bytes):
        scores, order = tf.nn.top_k(self.probabilities(self.decode(image_bytes))[0], TOP)
        return {"labels": tf.gather(tf.constant(COLORS), order), "scores": scores}

    @tf.function(
        input_signature=[
            tf.TensorSpec((None,), tf.float32, "a"),
            tf.TensorSpec((None,), tf.int64, "b"),
        ]
    )
    def two_inputs(self, a, b):
        return {"sum": a + tf.cast(b, tf.float32)}


def expected_probabilities(images, scale: float):
    """Returns the probabilities of the model, computed in NumPy."""
    means = np.asarray(images, np.float64).mean((1, 2))
    logits = np.concatenate([means / scale, np.zeros((len(means), 1))], axis=1)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def save(folder: Path, scale: float, *names: str) -> None:
    """Saves the model with some of its signatures."""
    model = Colors(scale)
    tf.saved_model.save(model, str(folder), {name: getattr(model, name) for name in names})


def predict_gray(channel, wait=False, seconds=60):
    """Returns the probabilities of a gray image from a server."""
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="colors"))
    request.inputs["images"].CopyFrom(to_tensor_proto(GRAY))
    raw = channel.unary_unary(methods.PREDICT)(
        request.SerializeToString(), timeout=seconds, wait_for_ready=wait
    )
    return decode_tensor(pb.PredictResponse.FromString(raw).outputs["probabilities"])


def check_gray(probabilities):
    """Compares the probabilities of a gray image by version 2."""
    np.testing.assert_allclose(probabilities, expected_probabilities(GRAY, 64), atol=1e-6)


def error_of_call(call_server, method, request):
    """Returns the status code and the details of a call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call_server(method, request, pb.PredictResponse)
    return caught.value.code().name, caught.value.details()
