"""Error details hold no paths."""

import grpc
import numpy as np
import tensorflow as tf

from cnnkit.server import EmbeddedServer
from cnnkit.server.status_error import quote_name, truncate_details
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.tensors import to_tensor_proto
from tests.helpers.busy_server import code_of, send

HOSTILE, ESCAPED = "x\x1b[2K\rOK\n\u202e", r"x\x1b[2K\rOK\n\u202e"


class Files(tf.Module):
    """A model that reads a file named by the client."""

    @tf.function(input_signature=[tf.TensorSpec((), tf.string, "name")])
    def read(self, name):
        return {"content": tf.io.read_file(name)}


def test_no_path_in_an_error_text(tmp_path):
    model = Files()
    tf.saved_model.save(model, str(tmp_path / "files" / "1"), {"serving_default": model.read})
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="files"))
    request.inputs["name"].CopyFrom(
        to_tensor_proto(np.array(str(tmp_path / "secret").encode(), object))
    )
    with (
        EmbeddedServer({"files": tmp_path / "files"}) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        call = send(channel, request.SerializeToString())
        assert code_of(call) == "NOT_FOUND"
        assert "<path>; No such file or directory" in call.details()
        assert str(tmp_path) not in call.details()
        # Names of the client come back as one line that moves no cursor.
        for change in (
            {"model_spec": pb.ModelSpec(name=HOSTILE)},
            {"model_spec": pb.ModelSpec(name="files", version_label=HOSTILE)},
            {"model_spec": pb.ModelSpec(name="files", signature_name=HOSTILE)},
            {"model_spec": pb.ModelSpec(name="files"), "output_filter": [HOSTILE]},
            {"model_spec": pb.ModelSpec(name="files"), "inputs": {HOSTILE: pb.TensorProto()}},
        ):
            wrong = pb.PredictRequest(inputs=request.inputs)
            wrong.MergeFrom(pb.PredictRequest(**change))
            details = send(channel, wrong.SerializeToString()).details()
            assert ESCAPED in details and details.isprintable()


def test_texts_of_tensorflow_keep_their_lines_and_no_other_control():
    assert truncate_details("a\n\t [[{{node b}}]]\x1b[2J\r") == ("a\n\t [[{{node b}}]]\\x1b[2J\\r")
    assert quote_name("a" * 500) == "a" * 500
    assert quote_name("a" * 501) == "a" * 500 + "... (501 characters)"


def test_details_fit_into_the_header_that_grpc_encodes_them_for():
    """gRPC writes % and what is not printable ASCII as three bytes, and may send 4,000."""
    for text, room in ((" ", 1), ("~", 1), ("%", 3), ("\n", 3), ("\u00e9", 6)):
        assert len(truncate_details(text * 9000)) == 4000 // room
