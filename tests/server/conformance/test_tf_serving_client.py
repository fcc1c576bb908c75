"""TensorFlow Serving's and OpenVINO's clients with the embedded server."""

import subprocess
import sys

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import error_codes_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.helpers.serving import COLORS, SIZE, expected_probabilities


@pytest.fixture
def channel(colors_server):
    with grpc.insecure_channel(colors_server.address) as opened:
        yield opened


@pytest.fixture
def prediction(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def test_predict(prediction, rng):
    images = rng.uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "colors"
    request.model_spec.version.value = 1
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(images))
    response = prediction.Predict(request, timeout=20)
    np.testing.assert_allclose(
        tf.make_ndarray(response.outputs["probabilities"]),
        expected_probabilities(images, 32),
        atol=1e-6,
    )
    assert response.model_spec.version.value == 1


def test_predict_strings(prediction, png):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "colors"
    request.model_spec.signature_name = "classify_bytes"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([png(250, 90, 10), png(0, 9, 90)]))
    request.output_filter.append("labels")
    response = prediction.Predict(request, timeout=20)
    assert list(response.outputs) == ["labels"]
    assert tf.make_ndarray(response.outputs["labels"]).tolist() == [
        [b"red", b"green", b"blue"],
        [b"blue", b"green", b"red"],
    ]


def test_metadata(prediction):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "colors"
    response = prediction.GetModelMetadata(request, timeout=20)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    default = signatures.signature_def["serving_default"]
    assert default.method_name == "tensorflow/serving/predict"
    assert default.inputs["images"].dtype == tf.float32.as_datatype_enum
    assert default.outputs["probabilities"].tensor_shape.dim[1].size == len(COLORS)


def test_status(channel):
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "colors"
    response = stub.GetModelStatus(request, timeout=20)
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert [(status.version, status.state) for status in response.model_version_status] == [
        (2, available),
        (1, available),
    ]


def test_errors_keep_their_codes(prediction):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "colors"
    request.model_spec.signature_name = "bogus"
    with pytest.raises(grpc.RpcError) as caught:
        prediction.Predict(request, timeout=20)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == 'Serving signature key "bogus" not found.'


def test_reload(channel):
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest(), timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.add(name="colors", base_path="/etc")
    response = stub.HandleReloadConfigRequest(request, timeout=20)
    assert response.status.error_code == error_codes_pb2.INVALID_ARGUMENT
    assert "/etc" not in response.status.error_message


# In a subprocess, because its messages have the same names as TensorFlow Serving's.
OVMSCLIENT = """
import sys
import numpy as np
import ovmsclient

client = ovmsclient.make_grpc_client(sys.argv[1])
print(client.get_model_status(model_name="colors"))
metadata = client.get_model_metadata(model_name="colors")
print(metadata["model_version"], metadata["inputs"], sorted(metadata["outputs"]))
image = np.full((2, 8, 8, 3), 64, np.float32)
answered = client.predict(inputs={"images": image}, model_name="colors", model_version=1)
print(answered["probabilities"].shape, round(float(answered["probabilities"][1, 0]), 4))
for inputs, options in (
    ({"images": image}, {"model_name": "nope"}),
    ({"images": image}, {"model_name": "colors", "model_version": 9}),
    ({"images": image[0]}, {"model_name": "colors"}),
    ({"bogus": image}, {"model_name": "colors"}),
):
    try:
        client.predict(inputs=inputs, **options)
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_ovmsclient(colors_server):
    pytest.importorskip("ovmsclient")
    done = subprocess.run(
        [sys.executable, "-c", OVMSCLIENT, colors_server.address],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = expected_probabilities(np.full((2, SIZE, SIZE, 3), 64), 32)[1, 0]
    lines = done.stdout.splitlines()
    assert lines[:3] == [
        str(
            {
                version: {"state": "AVAILABLE", "error_code": 0, "error_message": ""}
                for version in (2, 1)
            }
        ),
        "2 {'images': {'shape': [-1, 8, 8, 3], 'dtype': 'DT_FLOAT'}} ['means', 'probabilities']",
        f"(2, 4) {expected:.4f}",
    ]
    assert [line.split()[0] for line in lines[3:]] == [
        "ModelNotFoundError",
        "ModelNotFoundError",
        "InvalidInputError",
        "InvalidInputError",
    ]
