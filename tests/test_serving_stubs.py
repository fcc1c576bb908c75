"""TensorFlow Serving's own client code, talking to our server."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from serving_helpers import COLOURS, SIZE, expected_probabilities
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)


@pytest.fixture
def channel(colours_server):
    with grpc.insecure_channel(colours_server.address) as opened:
        yield opened


@pytest.fixture
def prediction(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def test_predict(prediction, rng):
    images = rng.uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "colours"
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
    request.model_spec.name = "colours"
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
    request.model_spec.name = "colours"
    response = prediction.GetModelMetadata(request, timeout=20)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    default = signatures.signature_def["serving_default"]
    assert default.method_name == "tensorflow/serving/predict"
    assert default.inputs["images"].dtype == tf.float32.as_datatype_enum
    assert default.outputs["probabilities"].tensor_shape.dim[1].size == len(COLOURS)


def test_status(channel):
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "colours"
    response = stub.GetModelStatus(request, timeout=20)
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert [(status.version, status.state) for status in response.model_version_status] == [
        (2, available),
        (1, available),
    ]


def test_refusals_keep_their_codes(prediction):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "colours"
    request.model_spec.signature_name = "bogus"
    with pytest.raises(grpc.RpcError) as caught:
        prediction.Predict(request, timeout=20)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == 'Serving signature key "bogus" not found.'
