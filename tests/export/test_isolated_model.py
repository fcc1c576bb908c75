"""A SavedModel in a subprocess that may crash."""

import numpy as np

from cnnkit.export import verify
from cnnkit.export.isolated_model import Request, run_isolated


def test_a_process_that_crashes_is_replaced(unguarded):
    """Every question gets its own reply, in order, whatever the ones before did."""
    right = np.zeros((1, 16, 16, 3), np.float32)
    wrong = np.zeros((16, 16, 3), np.float32)
    signature = verify._read_signatures(unguarded)[0]["serving_default"]
    [name] = signature
    questions = [
        Request("serving_default", {name: right}),
        Request("serving_default", {name: wrong}),
        Request("serving_default", {name: right}, keep_outputs=True),
    ]
    first, second, third = run_isolated(unguarded, questions)
    assert (first.code, third.code) == ("OK", "OK")
    assert second.code != "OK"
    assert third.outputs["output_0"].shape == (1, 3)
