"""Program that runs requests to a SavedModel; `cnnkit.export.isolated_model` starts it.

    python isolated_worker.py FOLDER WORK

WORK/inputs.json holds the types of the signatures' inputs by tensor name, WORK/requests.json lists
the requests, and WORK/requests.npz holds their tensors. After each request a line of JSON goes to
standard output, and WORK/<number>.npz holds the outputs if they are kept.

The program imports TensorFlow, blocks Keras, and feeds tensors of any shape: TensorFlow Serving
does not compare shapes with the signature either. A graph without checks can crash the process.

TensorFlow 2 has no API that feeds an input of another shape than the signature's, so this file, and
no other, loads models with `tf.compat.v1`: Session, placeholder, saved_model.load (`input_map`).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

TAG = "serve"


def run_requests(folder: str, work: Path) -> None:
    """Runs every request of WORK/requests.json.

    Args:
        folder: The SavedModel.
        work: The folder of requests and outputs.
    """
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    inputs = json.loads((work / "inputs.json").read_text())
    requests = json.loads((work / "requests.json").read_text())
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        # Inputs of unknown shape in place of the signatures' inputs.
        placeholders = {name: tf.compat.v1.placeholder(dtype) for name, dtype in inputs.items()}
        meta = tf.compat.v1.saved_model.load(session, [TAG], folder, input_map=placeholders)
        print(json.dumps({"loaded": True}), flush=True)
        with np.load(work / "requests.npz") as arrays:
            for request in requests:
                signature = meta.signature_def[request["signature"]]
                feed = {
                    placeholders[signature.inputs[name].name]: _input_array(arrays, key)
                    for name, key in request["inputs"].items()
                }
                fetches = {name: info.name for name, info in signature.outputs.items()}
                file = work / f"{request['number']}.npz" if request["keep_outputs"] else None
                status = _run(session, fetches, feed, file)
                print(json.dumps({"number": request["number"], **status}), flush=True)


def _run(
    session: Any, fetches: Mapping[str, str], feed: Mapping[Any, np.ndarray], file: Path | None
) -> dict[str, str]:
    """Runs one request, writes its outputs to `file`, and returns its status code and details."""
    import tensorflow as tf

    codes = {getattr(tf.errors, name): name for name in dir(tf.errors) if name.isupper()}
    try:
        outputs = session.run(fetches, feed)
    except tf.errors.OpError as error:
        return {"code": codes.get(error.error_code, "UNKNOWN"), "details": error.message}
    if file is not None:
        arrays: dict[str, Any] = {name: _output_array(values) for name, values in outputs.items()}
        np.savez(file, **arrays)
    return {"code": "OK", "details": ""}


def _input_array(arrays: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    """Returns an array; strings are stored as their bytes, their lengths and their shape."""
    if key in arrays:
        return arrays[key]
    data = arrays[f"{key}/bytes"].tobytes()
    shape, lengths = arrays[f"{key}/shape"], arrays[f"{key}/lengths"]
    ends = np.cumsum(lengths)
    texts = [data[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    array = np.empty(len(texts), object)
    array[:] = texts
    return array.reshape(shape)


def _output_array(values: np.ndarray) -> np.ndarray:
    """Returns an array that np.savez stores without pickle: strings as np.str_."""
    if values.dtype != object:
        return values
    return np.array([text.decode() for text in values.ravel()], dtype=np.str_).reshape(values.shape)


if __name__ == "__main__":
    # Before TensorFlow is imported; the functions above import it for this reason.
    sys.modules["keras"] = None  # type: ignore[assignment]
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    run_requests(sys.argv[1], Path(sys.argv[2]))
