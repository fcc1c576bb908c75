"""Asks a SavedModel as a model server does: a program of its own, run by `cnnkit.export.isolated_model`.

It imports TensorFlow and nothing else, with Keras out of reach, and it feeds tensors of any shape:
TensorFlow Serving does not compare shapes with the signature either. A graph without guards can end
this process, which is why it is one of its own.

    python probe.py FOLDER WORK

WORK/requests.json lists the requests, WORK/requests.npz holds their tensors. For each one a line of
JSON goes to standard output as soon as it is answered, and WORK/<number>.npz keeps what it answered
where that is asked for.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

TAG = "serve"


def main(folder: str, work: Path) -> None:
    """Answers every request."""
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    requests = json.loads((work / "requests.json").read_text())
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        fed = _placeholders(folder)
        meta = tf.compat.v1.saved_model.load(session, [TAG], folder, input_map=fed)
        print(json.dumps({"loaded": True}), flush=True)
        with np.load(work / "requests.npz") as tensors:
            for request in requests:
                outcome = _answer(session, meta.signature_def, fed, request, tensors, work)
                print(json.dumps({"number": request["number"], **outcome}), flush=True)


def _placeholders(folder: str) -> dict:
    """Returns an input of unknown shape in place of each input of the signatures."""
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel.FromString((Path(folder) / "saved_model.pb").read_bytes())
    [graph] = [one for one in model.meta_graphs if TAG in one.meta_info_def.tags]
    return {
        info.name: tf.compat.v1.placeholder(info.dtype)
        for signature in graph.signature_def.values()
        for info in signature.inputs.values()
        if info.name
    }


def _answer(session, signatures, fed: dict, request: dict, tensors, work: Path) -> dict:
    import tensorflow as tf

    codes = {getattr(tf.errors, name): name for name in dir(tf.errors) if name.isupper()}
    signature = signatures[request["signature"]]
    feed = {
        fed[signature.inputs[name].name]: _tensor(tensors, key)
        for name, key in request["inputs"].items()
    }
    wanted = {name: info.name for name, info in signature.outputs.items()}
    try:
        answered = session.run(wanted, feed)
    except tf.errors.OpError as error:
        return {"code": codes.get(error.error_code, "UNKNOWN"), "text": error.message}
    if request["keep"]:
        np.savez(work / f"{request['number']}.npz", **{k: _plain(v) for k, v in answered.items()})
    return {"code": "OK", "text": ""}


def _tensor(tensors, key: str) -> np.ndarray:
    """Strings lie in the file as one array of bytes, and the shape and the lengths beside it."""
    if key in tensors:
        return tensors[key]
    data = tensors[f"{key}/bytes"].tobytes()
    shape, lengths = tensors[f"{key}/shape"], tensors[f"{key}/lengths"]
    ends = np.cumsum(lengths)
    texts = [data[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    array = np.empty(len(texts), object)
    array[:] = texts
    return array.reshape(shape)


def _plain(values: np.ndarray) -> np.ndarray:
    if values.dtype != object:
        return values
    return np.array([text.decode() for text in values.ravel()], dtype=np.str_).reshape(values.shape)


if __name__ == "__main__":
    # Before TensorFlow is imported, which is why its imports stand in the functions.
    sys.modules["keras"] = None  # type: ignore[assignment]
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    main(sys.argv[1], Path(sys.argv[2]))
