"""A server of gRPC and REST, and what gRPC's Predict answers."""

import grpc
import numpy as np
import pytest

from cnnkit.server import EmbeddedServer, ServerLimits
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.tensors import decode_tensor, to_tensor_proto
from tests.helpers.serving import GRAY

IMAGES = np.concatenate([GRAY * np.float32([[[[1, 2, 3]]]]), GRAY])


@pytest.fixture(scope="package")
def server(colors_folder):
    pytest.importorskip("aiohttp")
    with EmbeddedServer(
        {"colors": colors_folder, "a b": colors_folder},
        versions="all",
        version_labels={"colors": {"stable": 1}},
        limits=ServerLimits(max_request_rows=8, max_request_bytes=2**20, max_memory_bytes=2**25),
        rest_port=0,
    ) as started:
        yield started


@pytest.fixture(scope="package")
def channel(server):
    with grpc.insecure_channel(server.address) as opened:
        yield opened


@pytest.fixture(scope="package")
def inputs(png):
    """The inputs of each signature."""
    files = np.array([png(40, 40, 40), png(200, 30, 10)], object)
    return {
        "serving_default": {"images": IMAGES},
        "serving_bytes": {"image_bytes": files},
        "classify_bytes": {"image_bytes": files},
        "two_inputs": {"a": np.float32([1.5, np.inf]), "b": np.int64([2, -(2**62)])},
    }


@pytest.fixture(scope="package")
def predicted(channel, inputs):
    """Returns the outputs of a signature by gRPC's Predict."""

    def predict(signature, version=2):
        request = pb.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "colors", signature
        request.model_spec.version.value = version
        for name, array in inputs[signature].items():
            request.inputs[name].CopyFrom(to_tensor_proto(array))
        raw = channel.unary_unary(methods.PREDICT)(request.SerializeToString(), timeout=30)
        response = pb.PredictResponse.FromString(raw)
        return {name: decode_tensor(tensor) for name, tensor in response.outputs.items()}

    return predict
