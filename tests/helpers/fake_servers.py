"""Servers without TensorFlow: one with given responses, and models computed by NumPy."""

import contextlib
import threading
from concurrent import futures

import grpc
import numpy as np

from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.tensors import decode_tensor, encode_values


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
    """A model with the signature x (n, 2) float32 -> y (n, 2), twice x; records its calls.

    Attributes:
        before: Called with the number of the Predict call, from 1, and its context; may abort.
        version: The version in the responses.
        rows: The number of rows of each Predict call, in order.
        methods: The paths of all calls.
        headers: The headers of the last call.
        most_at_once: The maximum number of concurrent Predict calls.
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
            response.model_spec.version.value = self.version
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
            x = decode_tensor(request.inputs["x"])
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
        """The number of Predict calls."""
        return len(self.rows)


class Brightness:
    """A classifier of day and night with all signatures of an exported model.

    Encoded images that begin with B are day; those that begin with X cannot be decoded. The
    probability of day of pixels (2, 2, 3) is their mean, divided by 255.

    Attributes:
        asked: The signature and the images of each Predict call.
        refusal: The text for an image that cannot be decoded.
        state: The state of its version 3.
        looks: Released at each status call.
    """

    LABELS = ("day", "night")

    def __init__(self) -> None:
        self.asked = []
        self.refusal = "Unknown image file format."
        self.state = pb.ModelVersionStatus.AVAILABLE
        self.looks = threading.Semaphore(0)

    def __call__(self, path, request, context):
        if path == methods.GET_MODEL_STATUS:
            self.looks.release()
            if pb.GetModelStatusRequest.FromString(request).model_spec.name == "absent":
                context.abort(grpc.StatusCode.NOT_FOUND, "Could not find any versions")
            response = pb.GetModelStatusResponse()
            response.model_version_status.add(version=3, state=self.state)
            return response.SerializeToString()
        if path == methods.GET_MODEL_METADATA:
            return self._metadata().SerializeToString()
        request = pb.PredictRequest.FromString(request)
        signature = request.model_spec.signature_name
        [images] = map(decode_tensor, request.inputs.values())
        self.asked.append((signature, images.tolist()))
        if images.dtype.kind == "O":
            if any(image.startswith(b"X") for image in images):
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, self.refusal)
            day = np.array([0.75 if image.startswith(b"B") else 0.25 for image in images])
        else:
            day = images.mean((1, 2, 3)) / 255
        response = pb.PredictResponse()
        response.model_spec.version.value = 3
        for name, values in self._outputs(signature, np.stack([day, 1 - day], 1)).items():
            response.outputs[name].CopyFrom(encode_values(values))
        return response.SerializeToString()

    def _outputs(self, signature, probabilities):
        rows = np.arange(len(probabilities))
        order = np.argsort(-probabilities, axis=1, kind="stable")
        labels = np.array([label.encode() for label in self.LABELS], object)[order]
        scores = np.take_along_axis(probabilities, order, axis=1).astype(np.float32)
        if signature == "classify_bytes":
            return {"labels": labels, "scores": scores}
        if signature == "serving_default":
            return {"probabilities": np.float32(probabilities)}
        if signature.startswith("features"):
            return {"features": np.float32(probabilities)}
        projection = np.zeros((len(rows), 6, 6, 3), np.float32)
        projection[:, 2:4] = (1, -1, 1)
        shown = {"projection": projection, "image": np.full((len(rows), 6, 6, 3), 200, np.uint8)}
        if signature == "explain_bytes":
            return {"labels": labels[:, 0], "scores": scores[:, 0], **shown}
        return {"unit": rows + 7, "activation": np.float32(rows + 2.5), **shown}

    def _metadata(self):
        response = pb.GetModelMetadataResponse()
        definitions = pb.SignatureDefMap()
        seen = {"projection": (pb.DT_FLOAT, 6, 6, 3), "image": (pb.DT_UINT8, 6, 6, 3)}
        encoded = {"image_bytes": (pb.DT_STRING,)}
        pixels = {"images": (pb.DT_FLOAT, 2, 2, 3)}
        two = (pb.DT_FLOAT, 2)
        for name, inputs, outputs in (
            ("classify_bytes", encoded, {"labels": (pb.DT_STRING, 2), "scores": two}),
            ("serving_default", pixels, {"probabilities": two}),
            ("features", pixels, {"features": two}),
            ("features_bytes", encoded, {"features": two}),
            (
                "explain_bytes",
                encoded,
                {"labels": (pb.DT_STRING,), "scores": (pb.DT_FLOAT,), **seen},
            ),
            (
                "explain_bytes_conv1",
                encoded,
                {"unit": (pb.DT_INT64,), "activation": (pb.DT_FLOAT,), **seen},
            ),
        ):
            definition = definitions.signature_def[name]
            for of, specs in ((definition.inputs, inputs), (definition.outputs, outputs)):
                for key, (dtype, *sizes) in specs.items():
                    of[key].dtype = dtype
                    for size in (-1, *sizes):
                        of[key].tensor_shape.dim.add(size=size)
        response.metadata["signature_def"].value = definitions.SerializeToString()
        return response


def _info(*sizes):
    info = pb.TensorInfo(dtype=pb.DT_FLOAT, name="t:0")
    for size in sizes:
        info.tensor_shape.dim.add(size=size)
    return info
