"""The status codes and texts of TensorFlow Serving, one row a case.

If this server differs on purpose, the row names what TensorFlow Serving does. Rows that need several
requests at the same time are in test_limits.py and test_batching.py. "Labels not initialised yet" has
no row: the server listens only after its labels are set.
"""

# ruff: noqa: E501 - a table reads best with a row a line

import grpc
import numpy as np
import pytest
import tensorflow as tf

from cnnkit.server import EmbeddedServer, ServerLimits
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.tensors import to_tensor_proto
from tests.helpers.serving import SIZE


class Networks(tf.Module):
    """Models without checks: only the signature restricts their inputs."""

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(tf.ones((3, 3, 3, 2)))

    @tf.function(input_signature=[tf.TensorSpec((None, SIZE, SIZE, 3), tf.float32, "images")])
    def fixed(self, images):
        return {"maps": tf.nn.conv2d(images, self.kernel, 1, "SAME")}

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32, "images")])
    def pooled(self, images):
        maps = tf.nn.conv2d(images, self.kernel, 1, "SAME")
        return {"means": tf.reduce_mean(maps, (1, 2))}

    @tf.function(input_signature=[tf.TensorSpec((), tf.float32, "x")])
    def scalar(self, x):
        return {"y": x + self.kernel[0, 0, 0, 0]}


@pytest.fixture(scope="module", params=[0.0, 0.002], ids=["", "batching"])
def server(request, tmp_path_factory, colors_folder):
    folder = tmp_path_factory.mktemp("networks") / "networks"
    model = Networks()
    names = ("fixed", "pooled", "scalar")
    tf.saved_model.save(model, str(folder / "1"), {name: getattr(model, name) for name in names})
    with EmbeddedServer(
        {"colors": colors_folder, "networks": folder},
        versions="all",
        version_labels={"colors": {"stable": 1}},
        limits=ServerLimits(batch_timeout_seconds=request.param, max_request_rows=8),
        allow_reload=True,
    ) as started:
        yield started


GOOD = to_tensor_proto(np.zeros((2, SIZE, SIZE, 3), np.float32))


def images(*shape, dtype=np.float32):
    return to_tensor_proto(np.zeros(shape, dtype))


def predict(inputs=None, *, spec=None, outputs=(), **fields):
    spec = pb.ModelSpec(**{"name": "colors", **fields}) if spec is None else spec
    message = pb.PredictRequest(model_spec=spec or None, output_filter=outputs)
    for name, tensor in ({"images": GOOD} if inputs is None else inputs).items():
        message.inputs[name].CopyFrom(tensor)
    return methods.PREDICT, message


def network(signature, **inputs):
    return predict(inputs, name="networks", signature_name=signature)


def truncated():
    tensor = images(2, SIZE, SIZE, 3)
    tensor.tensor_content = tensor.tensor_content[:-4]
    return tensor


def status(**fields):
    return methods.GET_MODEL_STATUS, pb.GetModelStatusRequest(model_spec=pb.ModelSpec(**fields))


def metadata(*names):
    message = pb.GetModelMetadataRequest(
        model_spec=pb.ModelSpec(name="colors"), metadata_field=names
    )
    return methods.GET_MODEL_METADATA, message


def reload(**fields):
    message = pb.ReloadConfigRequest()
    if fields:
        message.config.model_config_list.config.add(name="colors", **fields)
    return methods.RELOAD_CONFIG, message


VERSION_9 = {"version": {"value": 9}}


SHAPE = "Shape of tensor images [{}] is not compatible with expected shape [?,8,8,3]."


RELOAD_TYPE = (
    "ServerModelConfig type not supported by HandleReloadConfigRequest. "
    "Only ModelConfigList is currently supported"
)


TABLE = [
    ("a good request", predict(), "OK", ""),
    ("unknown model", predict(name="nope"), "NOT_FOUND", "Servable not found for request: Latest(nope)"),
    ("unknown version", predict(**VERSION_9), "NOT_FOUND", "Servable not found for request: Specific(colors, 9)"),
    ("unknown label", predict(version_label="canary"), "INVALID_ARGUMENT", "Unrecognized servable version label: canary"),
    ("known label", predict(version_label="stable"), "OK", ""),
    ("no model_spec", predict(spec=False), "INVALID_ARGUMENT", "Missing ModelSpec"),
    ("empty name", predict(name=""), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    ("unknown signature", predict(signature_name="bogus"), "FAILED_PRECONDITION", 'Serving signature key "bogus" not found.'),
    ("named serving_default", predict(signature_name="serving_default"), "OK", ""),
    ("wrong input name", predict({"bogus": GOOD}), "INVALID_ARGUMENT", "Signature input alias: images(feed name: serving_default_images:0) not found in request and no default value provided. Inputs expected to be in the request {bogus}"),
    ("extra input", predict({"images": GOOD, "bogus": GOOD}), "INVALID_ARGUMENT", "input size does not match signature: 2!=1 len({bogus,images}) != len({images}). Sent extra: {bogus}. Missing but required: {}."),
    ("no input", predict({}), "INVALID_ARGUMENT", "input size does not match signature: 0!=1 len({}) != len({images}). Sent extra: {}. Missing but required: {images}."),
    ("unknown output", predict(outputs=["zzz"]), "INVALID_ARGUMENT", "output tensor alias not found in signature: zzz Outputs expected to be in the set {means,probabilities}."),
    ("wrong dtype", predict({"images": images(2, SIZE, SIZE, 3, dtype=np.float64)}), "INVALID_ARGUMENT", "Expects arg[0] to be float but double is provided"),
    ("truncated content", predict({"images": truncated()}), "INVALID_ARGUMENT", "tensor parsing error: images"),
    # TensorFlow Serving: the process crashes.
    ("wrong rank, unguarded", network("fixed", images=images(SIZE, SIZE, 3)), "INVALID_ARGUMENT", SHAPE.format("8,8,3")),
    ("scalar, unguarded", network("fixed", images=images()), "INVALID_ARGUMENT", SHAPE.format("")),
    ("wrong rank, free size", network("pooled", images=images(SIZE, SIZE, 3)), "INVALID_ARGUMENT", "is not compatible with expected shape [?,?,?,3]."),
    ("wrong height", predict({"images": images(2, 4, SIZE, 3)}), "INVALID_ARGUMENT", SHAPE.format("2,4,8,3")),
    ("another size, global pooling", network("pooled", images=images(2, 5, 7, 3)), "OK", ""),
    # TensorFlow Serving: the error comes from the convolution.
    ("wrong channels, unguarded", network("fixed", images=images(1, SIZE, SIZE, 1)), "INVALID_ARGUMENT", SHAPE.format("1,8,8,1")),
    # TensorFlow Serving: no answer if the server batches.
    ("empty batch", predict({"images": images(0, SIZE, SIZE, 3)}), "OK", ""),
    ("batch too large", predict({"images": images(9, SIZE, SIZE, 3)}), "INVALID_ARGUMENT", "Task size 9 is larger than maximum input batch size 8"),
    # TensorFlow Serving: a server that batches refuses every scalar.
    ("scalar input", network("scalar", x=images()), "OK", ""),
    ("no such row", network("scalar", x=images(2)), "INVALID_ARGUMENT", "Shape of tensor x [2] is not compatible with expected shape []."),
    ("status of an unknown model", status(name="nope"), "NOT_FOUND", "Could not find any versions of model nope"),
    ("status of an unknown version", status(name="colors", **VERSION_9), "NOT_FOUND", "Could not find version 9 of model colors"),
    # A status request ignores a label, even an unknown one.
    ("status of an unknown label", status(name="colors", version_label="nope"), "OK", ""),
    ("bad metadata field", metadata("foo"), "INVALID_ARGUMENT", "Metadata field foo is not supported"),
    ("no metadata field", metadata(), "INVALID_ARGUMENT", "GetModelMetadataRequest must specify at least one metadata_field"),
    ("classify", (methods.CLASSIFY, pb.ClassificationRequest(model_spec={"name": "colors"})), "INVALID_ARGUMENT", "No classification inputs found in SignatureDef"),
    ("regress", (methods.REGRESS, pb.RegressionRequest(model_spec={"name": "colors"})), "INVALID_ARGUMENT", "No regression inputs found in SignatureDef"),
    ("corrupt image", predict({"image_bytes": to_tensor_proto([b"not an image"])}, signature_name="serving_bytes"), "INVALID_ARGUMENT", "Unknown image file format. One of JPEG, JPEG XL, PNG, GIF, BMP, WebP required."),
    ("reload without a list", reload(), "INVALID_ARGUMENT", RELOAD_TYPE),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "code", "text"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_codes_and_texts(server, call, code, text):
    method, message = call
    with grpc.insecure_channel(server.address) as channel:
        pending = channel.unary_unary(method).future(message.SerializeToString(), timeout=30)
        if code == "OK":
            assert pending.result()
        else:
            error = pending.exception()
            assert error.code().name == code
            assert text in error.details()
            # Clients show the first line. No line holds a path.
            assert text in error.details().splitlines()[0]
            assert "/work" not in error.details()
            assert "/tmp" not in error.details()
        # The next request is answered.
        good, request = predict()
        assert channel.unary_unary(good)(request.SerializeToString(), timeout=30)


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        (
            {"base_path": "{folder}", "version_labels": {"stable": 7}},
            "FAILED_PRECONDITION",
            "Request to assign label to version 7 of model colors, which is not currently "
            "available for inference",
        ),
        # TensorFlow Serving: the call never returns.
        ({"base_path": "{folder}/none"}, "INVALID_ARGUMENT", "Model folder 'none' does not exist"),
    ],
)
def test_a_failed_reload_is_reported_in_the_response(server, colors_folder, fields, code, text):
    fields = {**fields, "base_path": fields["base_path"].format(folder=colors_folder)}
    method, message = reload(**fields)
    with grpc.insecure_channel(server.address) as channel:
        raw = channel.unary_unary(method)(message.SerializeToString(), timeout=30)
    status = pb.ReloadConfigResponse.FromString(raw).status
    assert (pb.Code.Name(status.error_code), status.error_message) == (code, text)


def test_a_server_that_is_down():
    method, message = predict()
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        error = channel.unary_unary(method).future(message.SerializeToString(), timeout=30)
        assert error.exception().code() is grpc.StatusCode.UNAVAILABLE
        assert "failed to connect to all addresses" in error.exception().details()
