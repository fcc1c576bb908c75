"""A SavedModel in a subprocess that may crash."""

import contextlib
import io
import json
import sys

import numpy as np
import pytest

from cnnkit.export import isolated_model, isolated_worker, verify
from cnnkit.export.isolated_model import ModelLoadError, Request, Response, run_isolated


def test_a_process_that_crashes_is_replaced(unguarded):
    """Every request has a response, in order, even after a crash."""
    right = np.zeros((1, 16, 16, 3), np.float32)
    wrong = np.zeros((16, 16, 3), np.float32)
    signature = verify._read_signatures(unguarded)[0]["serving_default"]
    [name] = signature
    questions = [
        Request("serving_default", {name: right}),
        Request("serving_default", {name: wrong}),
        Request("serving_default", {name: right}, keep_outputs=True),
    ]
    told = []

    @contextlib.contextmanager
    def progress(count, work):
        told.append((count, work))
        yield told.append

    first, second, third = run_isolated(unguarded, questions, progress=progress)
    assert told[0] == (3, "checking the exported network")
    # The request that crashes is not counted; each process says first that it is loaded.
    assert sum(told[1:]) >= 2
    assert (first.code, third.code) == ("OK", "OK")
    assert second.code != "OK"
    assert third.outputs["output_0"].shape == (1, 3)


def test_each_line_is_told_before_the_request_that_may_crash(unguarded, monkeypatch, tmp_path):
    """What waits in the buffer of a process is lost with it."""
    [name] = verify._read_signatures(unguarded)[0]["serving_default"]
    isolated_model._write_requests(
        tmp_path, [Request("serving_default", {name: np.zeros((1, 16, 16, 3), np.float32)})] * 2
    )
    inputs = isolated_model._input_types(unguarded)
    (tmp_path / "inputs.json").write_text(json.dumps(inputs))
    told, run = io.BytesIO(), isolated_worker._run
    seen = []

    def watch(*given):
        seen.append(told.getvalue().count(b"\n"))
        return run(*given)

    monkeypatch.setattr(isolated_worker, "_run", watch)
    with io.TextIOWrapper(told) as buffered:
        monkeypatch.setattr(sys, "stdout", buffered)
        isolated_worker.run_requests(str(unguarded), tmp_path)
        seen.append(told.getvalue().count(b"\n"))
        monkeypatch.undo()
    assert seen == [1, 2, 3]


def test_a_process_that_does_not_answer_is_ended(unguarded, monkeypatch):
    monkeypatch.setattr(isolated_model, "DEFAULT_TIMEOUT", 0.2)
    with pytest.raises(ModelLoadError, match=r"no answer within 0\.2 s"):
        run_isolated(unguarded, [Request("serving_default", {})])


def test_inputs_of_any_shape_are_fed(unguarded):
    """tf.compat.v1 feeds them: this fails if it is removed or begins to check shapes."""
    [name] = verify._read_signatures(unguarded)[0]["serving_default"]
    larger, told = np.zeros((1, 20, 24, 3), np.float32), []

    @contextlib.contextmanager
    def progress(count, work):
        yield told.append

    [response] = run_isolated(
        unguarded, [Request("serving_default", {name: larger}, keep_outputs=True)],
        progress=progress,
    )  # fmt: skip
    # Loading counts nothing, and the answer one.
    assert told == [0, 1]
    assert response.code == "OK", response.details
    assert response.outputs["output_0"].shape == (1, 3)


def test_a_folder_without_a_model_is_an_error(tmp_path):
    with pytest.raises(ModelLoadError):
        run_isolated(tmp_path, [])
    (tmp_path / "saved_model.pb").write_bytes(b"no model")
    with pytest.raises(ModelLoadError):
        run_isolated(tmp_path, [])


def test_requests_of_a_signature_that_crashed_are_left_out_if_asked(monkeypatch, tmp_path):
    requests = [Request(name, {}) for name in "aabaab"]
    fine, crash = Response("OK", "", {}), Response(None, "SIGABRT", {})
    asked = []

    def run(folder, inputs, remaining, advance):
        asked.append("".join(request.signature for request in remaining))
        # The second request of signature a ends its process.
        crashes = next((i for i, one in enumerate(remaining) if one is requests[1]), None)
        return [fine] * len(remaining) if crashes is None else [*[fine] * crashes, crash]

    monkeypatch.setattr(isolated_model, "_run_until_crash", run)
    monkeypatch.setattr(isolated_model, "_input_types", lambda folder: {})
    assert run_isolated(tmp_path, requests) == [fine, crash, fine, fine, fine, fine]
    found = run_isolated(tmp_path, requests, skip_after_crash=True)
    assert found == [fine, crash, fine, crash, crash, fine]
    assert asked == ["aabaab", "baab", "aabaab", "bb"]


def test_the_end_of_a_process_is_told():
    assert isolated_model._exit_reason(-6, b"text") == "the process was ended by SIGABRT"
    assert isolated_model._exit_reason(3, b"one\ntwo \xff\n\n") == "two \ufffd"
    assert isolated_model._exit_reason(0, b" \n") == "the process ended with code 0"
