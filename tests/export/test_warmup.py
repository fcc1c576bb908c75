"""The file of warm-up requests."""

import tensorflow as tf

from cnnkit.server.warmup import WARMUP_FILE


def test_records_are_what_tensorflow_serving_reads(model_folder):
    from tensorflow_serving.apis import prediction_log_pb2

    found = []
    for data in tf.data.TFRecordDataset(str(model_folder / "1" / WARMUP_FILE)):
        log = prediction_log_pb2.PredictionLog.FromString(data.numpy())
        assert log.WhichOneof("log_type") == "predict_log"
        spec = log.predict_log.request.model_spec
        assert spec.name == "letters"
        [tensor] = log.predict_log.request.inputs.values()
        array = tf.make_ndarray(tensor)
        assert array.shape[0] == 1
        found.append(spec.signature_name)
    assert sorted(found) == ["serving_bytes", "serving_bytes", "serving_default", "serving_default"]
