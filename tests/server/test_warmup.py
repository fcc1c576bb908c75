"""Warm-up requests run before a version is served."""

import shutil

import grpc
import pytest
import tensorflow as tf

from cnnkit.errors import RunError
from cnnkit.server.free_memory import MemoryShortageError
from cnnkit.server.servable import SavedModelServable
from cnnkit.server.status_error import StatusError
from cnnkit.server.warmup import WARMUP_FILE, load_and_warm_up
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.tensors import to_tensor_proto
from tests.helpers.polled_server import IMAGE, serve, version_states, wait_for


def test_warm_up_requests_run_before_a_version_is_served(model_folder, add_version):
    def write(version, signature):
        request = pb.PredictRequest(
            model_spec=pb.ModelSpec(name="colors", signature_name=signature)
        )
        request.inputs["images"].CopyFrom(to_tensor_proto(IMAGE))
        log = pb.PredictionLog(predict_log=pb.PredictLog(request=request))
        extra = model_folder / str(version) / "assets.extra"
        extra.mkdir()
        with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
            writer.write(log.SerializeToString())

    write(1, "serving_default")
    with serve({"colors": model_folder}) as (server, client):
        assert server.repository.versions("colors") == [1]
        shutil.copytree(model_folder / "1", model_folder / "aside")
        shutil.rmtree(model_folder / "aside" / "assets.extra")
        (model_folder / "aside").rename(model_folder / "6")
        write(6, "bogus")
        wait_for(lambda: version_states(client).get(6) == "END")
        [status] = [status for status in client.status("colors") if status.version == 6]
        assert "Warm-up request of version 6" in str(status)
        assert version_states(client)[1] == "AVAILABLE"


class Served(SavedModelServable):
    """A version whose graph does what a test says."""

    def __init__(self, name, version, folder, fault=None):
        self.loaded, self.runs, self._fault = (name, version, folder), 0, fault
        self.takes_pixels = False
        self.definitions = pb.SignatureDefMap()
        self.definitions.signature_def["serving_default"].SetInParent()

    def run(self, signature, inputs, outputs):
        self.runs += 1
        if self._fault is not None:
            raise StatusError(self._fault, "the graph fails")
        return {}


def write_requests(folder, records):
    (folder / WARMUP_FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / WARMUP_FILE)) as writer:
        for record in records:
            writer.write(record)


REQUEST = pb.PredictionLog(
    predict_log=pb.PredictLog(request=pb.PredictRequest(model_spec=pb.ModelSpec(name="m")))
).SerializeToString()


def test_a_thousand_requests_at_most(tmp_path):
    """As in TensorFlow Serving; a version without a file has none."""
    found = load_and_warm_up("m", 3, tmp_path, Served)
    assert (found.loaded, found.runs) == (("m", 3, tmp_path), 0)
    write_requests(tmp_path, [REQUEST] * 1001)
    assert load_and_warm_up("m", 3, tmp_path, Served).runs == 1000


@pytest.mark.parametrize(
    ("fault", "record", "kind", "text"),
    [
        (grpc.StatusCode.INTERNAL, REQUEST, RunError, "StatusError: the graph fails"),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            REQUEST,
            MemoryShortageError,
            "StatusError: the graph fails",
        ),
        (None, b"", RunError, "StatusError: Missing ModelSpec"),
        (None, b"\xff", RunError, "DecodeError: "),
        (None, None, RunError, "DataLossError: "),
    ],
)
def test_a_warm_up_that_fails(tmp_path, fault, record, kind, text):
    write_requests(tmp_path, [record or b""])
    if record is None:
        (tmp_path / WARMUP_FILE).write_bytes(b"no records at all")
    with pytest.raises(RunError) as caught:
        load_and_warm_up("m", 3, tmp_path, lambda *given: Served(*given, fault))
    assert type(caught.value) is kind
    assert str(caught.value).startswith(
        f"Warm-up request of version 3 of model 'm' failed. Received: {text}"
    )
    assert str(caught.value).endswith(
        f" Export the model again, or remove {tmp_path / WARMUP_FILE}."
    )
