"""Warm-up requests run before a version is served."""

import shutil

import tensorflow as tf

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
