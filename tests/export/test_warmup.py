"""The file of warm-up requests."""

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.errors import UsageError
from cnnkit.export.reference_outputs import ReferenceOutputs
from cnnkit.export.warmup import check_record_count, read_warmup_records, write_warmup_records
from cnnkit.server.warmup import WARMUP_FILE
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.tensors import decode_tensor


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


def test_the_number_of_records_has_a_limit():
    """TensorFlow Serving takes 1,000 records of all signatures together."""
    for count, signatures in ((0, "abc"), (333, "abc"), (1000, "a")):
        check_record_count(count, signatures)
    for count, signatures in ((-1, "abc"), (334, "abc"), (1001, "a")):
        with pytest.raises(UsageError, match=f"in 0..{1000 // len(signatures)} for .* {count}"):
            check_record_count(count, signatures)


def test_records_take_the_photographs_in_turn(tmp_path):
    references = ReferenceOutputs((b"one", b"two"), np.arange(2.0).reshape(2, 1, 1, 1), {})
    write_warmup_records(tmp_path, "net", ["serving_bytes", "features"], 3, references)
    found = [
        (one.model_spec.signature_name, decode_tensor(*one.inputs.values()).ravel().tolist())
        for one in read_warmup_records(tmp_path)
    ]
    assert found == [
        ("serving_bytes", [b"one"]), ("features", [0]), ("serving_bytes", [b"two"]),
        ("features", [1]), ("serving_bytes", [b"one"]), ("features", [0]),
    ]  # fmt: skip


def test_other_records_are_refused_and_no_file_is_no_records(tmp_path):
    assert list(read_warmup_records(tmp_path)) == []
    write_warmup_records(tmp_path, "net", ["features"], 0, None)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / WARMUP_FILE).parent.mkdir()
    with tf.io.TFRecordWriter(str(tmp_path / WARMUP_FILE)) as writer:
        writer.write(pb.PredictionLog().SerializeToString())
    with pytest.raises(UsageError, match="must hold nothing but Predict requests"):
        list(read_warmup_records(tmp_path))
