"""The client against the embedded server."""

import asyncio
import subprocess
import sys

import numpy as np
import pytest

from cnnkit.client import (
    AsyncClient,
    Client,
    InvalidRequest,
    ModelNotFound,
    Prediction,
    ServerError,
    Signature,
    TensorSpec,
    VersionStatus,
    image_calls,
)
from cnnkit.client.encode import RequestTarget
from cnnkit.errors import CnnkitError, UsageError
from cnnkit.wire import methods
from tests.helpers.serving import COLORS, SIZE, TOP, expected_probabilities


@pytest.fixture
def client(colors_server):
    with Client(colors_server.address, timeout=20) as opened:
        yield opened


@pytest.fixture
def images(rng):
    return rng.uniform(0, 255, (3, SIZE, SIZE, 3)).astype(np.float32)


def watch(client, monkeypatch):
    """Returns a list that the paths of the client's calls are added to."""
    called = []
    method = client._transport.method
    monkeypatch.setattr(
        client._transport, "method", lambda path: (called.append(path), method(path))[1]
    )
    return called


def one_line(error):
    assert "\n" not in str(error)
    return str(error)


def test_predict_by_array_and_by_name(client, images):
    for inputs in (images, {"images": images}, images.tolist()):
        answered = client.predict(inputs, model="colors")
        assert set(answered) == {"means", "probabilities"}
        np.testing.assert_allclose(
            answered["probabilities"], expected_probabilities(images, 64), atol=1e-6
        )
        np.testing.assert_allclose(answered["means"], images.mean((1, 2)), rtol=1e-5)


def test_version_label_and_outputs(client, images):
    first = expected_probabilities(images, 32)
    for chosen in ({"version": 1}, {"version_label": "stable"}):
        answered = client.predict(images, model="colors", outputs=["probabilities"], **chosen)
        assert set(answered) == {"probabilities"}
        np.testing.assert_allclose(answered["probabilities"], first, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.uint8, np.int64, np.float16, bool])
def test_numbers_are_cast(client, images, dtype):
    cast = images.astype(dtype)
    np.testing.assert_allclose(
        client.predict(cast, model="colors")["probabilities"],
        expected_probabilities(cast, 64),
        atol=1e-6,
    )


def test_a_missing_batch_axis_is_added(client, images):
    answered = client.predict(images[0], model="colors")["probabilities"]
    np.testing.assert_allclose(answered, expected_probabilities(images[:1], 64), atol=1e-6)


def test_several_inputs_by_name(client):
    inputs = {"a": [0.5, 1.5], "b": [1, 2]}
    answered = client.predict(inputs, model="colors", signature="two_inputs")
    assert answered["sum"].tolist() == [1.5, 3.5]


@pytest.mark.parametrize(
    ("inputs", "options", "text"),
    [
        (np.zeros((0, SIZE, SIZE, 3)), {}, "'images' is empty. Expected: a batch of 1 or more"),
        (np.zeros((2, 9, SIZE, 3)), {}, "wrong shape. Expected: float32 (n, 8, 8, 3). Received"),
        (np.zeros((SIZE, 3)), {}, "wrong shape"),
        (np.zeros((1, 1, SIZE, SIZE, 3)), {}, "wrong shape"),
        (np.array(1.0), {}, "wrong shape"),
        (["a"], {}, "wrong dtype. Expected: float32. Received: string"),
        (
            np.zeros((1, SIZE, SIZE, 3), complex),
            {},
            "wrong dtype. Expected: float32. Received: complex128",
        ),
        (np.full((1, SIZE, SIZE, 3), 1e300), {}, "cannot hold"),
        ([[1], [1, 2]], {}, "Input 'images' must be an array of a supported dtype"),
        ({"image": np.zeros((1, SIZE, SIZE, 3))}, {}, "Did you mean images?"),
        ({}, {}, "`inputs` must hold every input of the signature. Expected: images"),
        (np.zeros(2), {"signature": "two_inputs"}, "a dict with a, b"),
        (
            {"a": [1.0]},
            {"signature": "two_inputs"},
            "must hold every input of the signature. Expected: a, b. Received: a",
        ),
        ({"a": [1.0], "b": [1.5]}, {"signature": "two_inputs"}, "Expected: int64"),
        (np.zeros(2), {"signature": "serving"}, "Unknown signature 'serving'"),
        (np.zeros((1, SIZE, SIZE, 3)), {"outputs": ["logits"]}, "Unknown output 'logits'"),
        (
            np.zeros(2),
            {"version": 1, "version_label": "stable"},
            "`version` and `version_label` must not be given together",
        ),
        (np.zeros(2), {"timeout": 0}, "`timeout` must be positive"),
    ],
)
def test_wrong_inputs_are_refused_before_they_are_sent(
    colors_folder, inputs, options, text, monkeypatch, client
):
    called = watch(client, monkeypatch)
    with pytest.raises(UsageError) as caught:
        client.predict(inputs, model="colors", **options)
    assert text in one_line(caught.value)
    assert methods.PREDICT not in called


def test_metadata(client):
    offered = client.metadata("colors")
    assert offered["serving_default"] == Signature(
        {"images": TensorSpec("float32", (None, SIZE, SIZE, 3))},
        {
            "means": TensorSpec("float32", (None, 3)),
            "probabilities": TensorSpec("float32", (None, len(COLORS))),
        },
    )
    assert set(client.metadata("colors", version=1)) == {"serving_bytes", "serving_default"}


def test_metadata_is_asked_for_once(client, images, monkeypatch):
    asked = watch(client, monkeypatch)
    for _ in range(3):
        client.predict(images, model="colors")
    assert asked == [methods.GET_MODEL_METADATA, *[methods.PREDICT] * 3]


def test_a_model_that_was_replaced_is_looked_at_again(client, images):
    # As if the client had seen an older version, with another input.
    client._calls.known_signatures[RequestTarget("colors")] = {
        "serving_default": Signature({"pixels": TensorSpec("float32", (None, 5))}, {})
    }
    assert client.predict(images, model="colors")["probabilities"].shape == (3, len(COLORS))


def test_status(client):
    assert client.status("colors") == [
        VersionStatus(2, "AVAILABLE", "OK", ""),
        VersionStatus(1, "AVAILABLE", "OK", ""),
    ]
    assert [status.version for status in client.status("colors", version=1)] == [1]


def test_classify_with_labels(client, png, tmp_path):
    file = tmp_path / "green.png"
    file.write_bytes(png(10, 200, 60))
    for images in ([str(file), png(0, 0, 130)], [file, png(0, 0, 130)]):
        green, blue = client.classify(images, model="colors", top=2)
        assert [prediction.label for prediction in green] == ["green", "blue"]
        assert [prediction.label for prediction in blue][0] == "blue"
        wanted = sorted(expected_probabilities(np.full((1, 1, 1, 3), (10, 200, 60)), 64)[0])
        probabilities = [prediction.probability for prediction in green]
        np.testing.assert_allclose(probabilities, wanted[:-3:-1], atol=1e-6)
    assert isinstance(green[0], Prediction)
    assert isinstance(green[0].probability, float)


def test_classify_one_image_alone(client, png):
    assert client.classify(png(255, 0, 0), model="colors", top=1)[0][0].label == "red"


def test_classify_without_labels_names_the_index(client, png):
    (best, *rest), *_ = client.classify([png(0, 255, 0)], model="colors", version=1, top=4)
    assert best.label == "class 1"
    # red, blue and dark are equally probable: the order is theirs by index
    assert [prediction.label for prediction in rest] == ["class 0", "class 2", "class 3"]


def without_steps(probabilities):
    """A flow without steps."""
    yield from ()
    return {"probabilities": probabilities}


def test_classify_answers_five_classes_at_most_unless_told_otherwise(client, png):
    labels = [prediction.label for prediction in client.classify(png(0, 9, 0), model="colors")[0]]
    assert len(labels) == TOP
    assert len(client.classify(png(0, 9, 0), model="colors", version=1)[0]) == len(COLORS)
    probabilities = np.linspace(0, 1, 20)[np.newaxis]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_calls, "predict_flow", lambda *given: without_steps(probabilities))
        assert len(client.classify(b"...", model="colors", version=1)[0]) == 5


def test_classify_more_classes_than_there_are(client, png):
    with pytest.raises(UsageError) as caught:
        client.classify([png(0, 0, 0)], model="colors", top=TOP + 2)
    assert f"Expected: top <= {TOP}. Received: {TOP + 2}" in one_line(caught.value)
    with pytest.raises(UsageError, match="`top` must be positive"):
        client.classify([png(0, 0, 0)], model="colors", top=0)


def test_an_image_that_is_none(client):
    with pytest.raises(InvalidRequest) as caught:
        client.classify([b"not an image"], model="colors", top=1)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert "Unknown image file format" in one_line(caught.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"model": "nope"}, "Use the name of a served model; the server has no 'nope'"),
        ({"model": "colors", "version": 9}, "Versions of 'colors' that are available: 1, 2"),
        (
            {"model": "colors", "version_label": "canary"},
            "Versions of 'colors' that are available: 1, 2",
        ),
    ],
)
def test_unknown_models_list_what_there_is(client, images, options, text):
    with pytest.raises(ModelNotFound) as caught:
        client.predict(images, **options)
    assert text in one_line(caught.value)
    assert isinstance(caught.value, ServerError)
    assert isinstance(caught.value, CnnkitError)


def test_errors_carry_the_id_of_the_request_in_the_servers_log(colors_server):
    """Of single calls, of parts of a batch, and in an event loop."""
    with Client(colors_server.address, metadata={"x-request-id": "order-7"}) as named:
        with pytest.raises(ModelNotFound) as caught:
            named.status("nope")
        assert caught.value.request_id == "order-7"
        with pytest.raises(InvalidRequest) as caught:
            named.predict({"image_bytes": [b"no image"]}, model="colors", signature="serving_bytes")
        assert (caught.value.row, caught.value.request_id) == (0, "order-7")
        with pytest.raises(InvalidRequest) as caught:
            named.predict({"image_bytes": [b"a", b"b"]}, model="colors", batch_size=1,
                          signature="serving_bytes")  # fmt: skip
        assert caught.value.request_id == "order-7"

    async def ask():
        async with AsyncClient(colors_server.address) as client:
            with pytest.raises(ModelNotFound) as caught:
                await client.status("nope")
            return caught.value.request_id

    # The server's own ids are 8 random bytes.
    assert len(bytes.fromhex(asyncio.run(ask()))) == 8


def test_a_closed_client(client):
    client.close()
    with pytest.raises(UsageError, match=f"This client of {client.address} is closed"):
        client.status("colors")


FORBID = """
import sys

class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "keras", "sklearn", "ml_dtypes", "scipy"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Forbid())
import numpy as np
from cnnkit.client import Client
with Client(sys.argv[1]) as client:
    answered = client.predict(np.zeros((1, 8, 8, 3), np.float32), model="colors")
    print(answered["probabilities"].tolist(), client.status("colors")[0].state)
"""


def test_the_client_needs_no_tensorflow(colors_server):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORBID, colors_server.address],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "[[0.25, 0.25, 0.25, 0.25]] AVAILABLE\n"
