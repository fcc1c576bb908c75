"""Servers without TensorFlow: one that says what it is told, one with a model that doubles."""

import contextlib
import threading
from concurrent import futures

import grpc
import numpy as np

from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.tensors import decode, encode_values


class _Replay(grpc.GenericRpcHandler):
    def __init__(self, answer) -> None:
        self._answer = answer

    def service(self, details):
        def handle(request, context):
            return self._answer(details.method, request, context)

        return grpc.unary_unary_rpc_method_handler(handle)


@contextlib.contextmanager
def fake_server(answer, port=0, credentials=None, threads=8, options=()):
    """A server whose every call is `answer(path, request bytes, context) -> response bytes`."""
    server = grpc.server(futures.ThreadPoolExecutor(threads), options=options)
    server.add_generic_rpc_handlers([_Replay(answer)])
    place = f"127.0.0.1:{port}"
    if credentials is None:
        port = server.add_insecure_port(place)
    else:
        port = server.add_secure_port(place, credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


class Doubling:
    """A model with the signature x (n, 2) float32 -> y (n, 2), twice x; remembers its calls.

    Attributes:
        before: Called with the number of the Predict call, from 1, and its context; may abort.
        version: What answers call themselves.
        rows: The rows of each Predict call, in the order in which they came.
        methods: The paths of all calls.
        headers: Those of the last call.
        most_at_once: The most Predict calls that were answered at the same time.
    """

    def __init__(self, before=lambda number, context: None, version=1, outputs=(-1, 2)) -> None:
        self.before = before
        self.version = version
        self.rows = []
        self.methods = []
        self.headers = {}
        self.most_at_once = 0
        self._outputs = outputs
        self._inside = 0
        self._lock = threading.Lock()

    def __call__(self, path, request, context):
        self.methods.append(path)
        self.headers = dict(context.invocation_metadata())
        if path == methods.PREDICT:
            return self._predict(pb.PredictRequest.FromString(request), context)
        if path == methods.GET_MODEL_METADATA:
            response = pb.GetModelMetadataResponse()
            definitions = pb.SignatureDefMap(
                signature_def={
                    "serving_default": pb.SignatureDef(
                        inputs={"x": _info(-1, 2)}, outputs={"y": _info(*self._outputs)}
                    )
                }
            )
            response.metadata["signature_def"].value = definitions.SerializeToString()
            return response.SerializeToString()
        response = pb.GetModelStatusResponse()
        response.model_version_status.add(
            version=self.version, state=pb.ModelVersionStatus.AVAILABLE
        )
        return response.SerializeToString()

    def _predict(self, request, context):
        with self._lock:
            x = decode(request.inputs["x"])
            self.rows.append(len(x))
            number = len(self.rows)
            self._inside += 1
            self.most_at_once = max(self.most_at_once, self._inside)
        try:
            self.before(number, context)
            response = pb.PredictResponse()
            response.model_spec.version.value = request.model_spec.version.value or self.version
            response.outputs["y"].CopyFrom(encode_values(np.float32(2 * x)))
            return response.SerializeToString()
        finally:
            with self._lock:
                self._inside -= 1

    @property
    def predicts(self) -> int:
        """How many Predict calls came."""
        return len(self.rows)


def _info(*sizes):
    info = pb.TensorInfo(dtype=pb.DT_FLOAT, name="t:0")
    for size in sizes:
        info.tensor_shape.dim.add(size=size)
    return info
