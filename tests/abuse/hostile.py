"""Requests that are made to break a server: valid ones that are changed, and JSON bombs."""

import base64
import json
import random

import numpy as np
from google.protobuf.message import DecodeError

from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire import open_inference_pb2 as v2
from cnnkit.wire.tensors import to_tensor_proto
from tests.abuse.changes import WORDS, change, change_fields, change_json
from tests.helpers.serving import GRAY

LENGTH = "Inference-Header-Content-Length"
PREDICT, INFER = "/v1/models/colors:predict", "/v2/models/colors/infer"
INFERENCE = "/inference.GRPCInferenceService"
# A PNG file of one pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
PATHS = [
    "/", "//", "/v1", "/v1/models", "/v1/models/", "/v1/models/colors/versions/", "/v2/models",
    "/v1/models/colors/versions/99999999999999999999:predict", "/v1/models/colors/labels/%00",
    "/v1/models/%63olors", "/v1/models/..%2f..%2fetc", "/v2/models/colors:nothing/infer",
    "/v2/models/colors/versions/x/infer", "/v1/health/other", "/v2/health/live", "/metrics",
    "/v1/models/" + "a" * 4000, "/v2/models/colors/ready", "/v1/models/colors/metadata",
]  # fmt: skip


def valid_bodies():
    """Returns requests that a server answers: path, headers, body."""
    images = GRAY.tolist()
    raw = GRAY.tobytes()
    tensor = {"name": "images", "datatype": "FP32", "shape": list(GRAY.shape)}
    binary = json.dumps(
        {"inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}]}
    ).encode()
    files = [{"b64": base64.b64encode(PNG).decode()}]
    return [
        (PREDICT, {}, json.dumps({"instances": images}).encode()),
        (PREDICT, {}, json.dumps({"inputs": {"images": images}}).encode()),
        (PREDICT, {}, json.dumps({"signature_name": "serving_bytes", "instances": files}).encode()),
        (INFER, {}, json.dumps({"inputs": [{**tensor, "data": images}], "id": "a"}).encode()),
        (INFER, {LENGTH: str(len(binary))}, binary + raw),
    ]


def valid_messages():
    """Returns messages that a server answers, with their methods."""
    predict = pb.PredictRequest(model_spec=pb.ModelSpec(name="colors"))
    predict.inputs["images"].CopyFrom(to_tensor_proto(GRAY))
    infer = v2.ModelInferRequest(model_name="colors", raw_input_contents=[GRAY.tobytes()])
    infer.inputs.add(name="images", datatype="FP32", shape=GRAY.shape)
    listed = v2.ModelInferRequest(model_name="colors:serving_bytes")
    image = listed.inputs.add(name="image_bytes", datatype="BYTES", shape=[1])
    image.contents.bytes_contents.append(PNG)
    metadata = pb.GetModelMetadataRequest(
        model_spec=pb.ModelSpec(name="colors"), metadata_field=[methods.SIGNATURE_DEF]
    )
    named = v2.ModelMetadataRequest(name="colors")
    return [
        (methods.PREDICT, predict), (methods.GET_MODEL_METADATA, metadata),
        (methods.GET_MODEL_STATUS, pb.GetModelStatusRequest(model_spec=predict.model_spec)),
        (methods.CLASSIFY, predict), (methods.RELOAD_CONFIG, pb.ReloadConfigRequest()),
        (f"{INFERENCE}/ModelInfer", infer), (f"{INFERENCE}/ModelInfer", listed),
        (f"{INFERENCE}/ModelMetadata", named), ("/no.Service/Method", named),
    ]  # fmt: skip


def http_request(source, bodies):
    """Returns a random request: verb, path, headers, body."""
    path, headers, body = source.choice(bodies)
    headers = {"Content-Type": "application/json", **headers}
    kind = source.randrange(10)
    if kind == 0:
        verb = source.choice(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
        return verb, source.choice(PATHS), headers, source.choice([b"", body])
    if kind == 1:
        name = source.choice(["x-request-id", "traceparent", "Content-Encoding", "Expect", LENGTH])
        headers[name] = source.choice(["a" * 200, "gzip", "-1", "100-continue", "9" * 30, "\x7f"])
    elif kind == 2:
        words = b", ".join(source.choice(WORDS) for _ in range(source.randint(1, 9)))
        body = b'{"instances": [' + words + b"]}"
    elif kind == 3:
        depth = source.randint(90, 20_000)
        body = source.choice([b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth])
    elif kind == 4:
        body = b'{"instances": 1, "instances": ' + body + b"}"
    elif kind < 7 and LENGTH not in headers:
        body = change_json(json.loads(body), source)
    elif kind < 9:
        body = change(body, source)
    return "POST", path, headers, body


def grpc_request(source, messages):
    """Returns a random request: method, bytes."""
    path, message = source.choice(messages)
    if source.random() < 0.5:
        return path, change(message.SerializeToString(), source)
    return path, change_fields(message, source)


def raw_http(source):
    """Returns bytes that are no HTTP, or several requests at once, and the right answers to them.

    The status codes of all answers stand in order, joined by spaces. "waits" is a server that waits
    for the rest of a request.
    """
    get = b"GET /v1/models/colors HTTP/1.1\r\nHost: a\r\n\r\n"
    post = b"POST /v1/models/colors:predict HTTP/1.1\r\nHost: a\r\n"
    found = [source.choice(["200", "404"]) for _ in range(source.randint(2, 30))]
    several = b"".join(get if code == "200" else get.replace(b"colors", b"c") for code in found)
    large = source.randint(9_000, 200_000)
    chunked, refused = post + b"Transfer-Encoding: chunked\r\n", {"400"}
    return source.choice([
        (several, {" ".join(found)}),
        # If both have arrived when the first is read, it is not answered.
        (get + b"\x00\x01\r\n\r\n", {"200 400", "400"}),
        (get[:-4] + b"\r\nX-Large: " + b"a" * large + b"\r\n\r\n", refused),
        (get[:-4] + b"\r\n" + b"".join(b"x%d: a\r\n" % i for i in range(2000)) + b"\r\n", refused),
        (post + b"Content-Length: 99\r\nContent-Length: 5\r\n\r\nhello", refused),
        (post + b"Content-Length: -5\r\n\r\n", refused),
        (post + b"Content-Length: 99999999999999999999\r\n\r\n", {"400", "413"}),
        (post + b"Content-Length: 999999999999\r\n\r\n", {"413"}),
        (post + b"Content-Length: 50\r\n\r\nnot all of it", {"waits"}),
        (chunked + b"\r\nfffffffffffffffff\r\n", refused),
        (chunked + b"\r\nno number\r\n", refused),
        (chunked + b"Content-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n", refused),
        (chunked + b"\r\n" + b"1\r\na\r\n" * 500 + b"0\r\n\r\n", refused),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", refused),
        (b"GET http://other/v1/models/colors HTTP/1.1\r\nHost: b\r\n\r\n", {"200", "400", "404"}),
        (source.randbytes(source.randint(1, 3000)), {"400", "waits"}),
        (change(get, source), None),
    ])  # fmt: skip


def is_readable(path, raw):
    """Returns True if protobuf reads a message of a method, which the server may have to unpack."""
    method = path.rpartition("/")[2]
    kind = vars(v2).get(f"{method}Request") or _REQUESTS[method]
    try:
        kind.FromString(raw)
    except DecodeError:
        return False
    # What begins like a compressed message, and is damaged, is refused likewise.
    return not raw.startswith((b"\x1f\x8b", b"\x78"))


_REQUESTS = {
    "Predict": pb.PredictRequest, "Classify": pb.ClassificationRequest,
    "GetModelMetadata": pb.GetModelMetadataRequest, "GetModelStatus": pb.GetModelStatusRequest,
    "HandleReloadConfigRequest": pb.ReloadConfigRequest, "Method": v2.ModelMetadataRequest,
}  # fmt: skip


def seeded(seed):
    """Returns a source of random numbers."""
    return random.Random(seed)


def expected_gray():
    """Returns the probabilities of a gray image by version 2."""
    from tests.helpers.serving import expected_probabilities

    return np.float64(expected_probabilities(GRAY, 64))
