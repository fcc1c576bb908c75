"""The error of a refused batch names the row, and images that hold no pixels are not sent."""

import grpc
import numpy as np
import pytest

from cnnkit.client import (
    Client,
    InvalidRequest,
    InvalidResponse,
    ServerError,
    Signature,
    TensorSpec,
    predict_calls,
)
from cnnkit.client.calls import Calls
from cnnkit.client.channel import ChannelOptions
from cnnkit.client.flow import RpcFailure
from cnnkit.client.predict_calls import find_refused_row, predict_flow
from cnnkit.errors import UsageError
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.tensors import decode_tensor
from tests.helpers.fake_servers import Brightness, Doubling, fake_server

REFUSED = grpc.StatusCode.INVALID_ARGUMENT


def refused(client, images, **options):
    with pytest.raises(InvalidRequest) as caught:
        client.classify(images, model="hours", **options)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_the_only_bad_image_is_found_although_the_server_does_not_name_it(client, model, count):
    for bad in range(count):
        files = [b"B%d" % index for index in range(count)]
        files[bad] = b"X"
        model.asked.clear()
        error = refused(client, files)
        assert error.row == bad
        assert f"refuses image_bytes[{bad}] of this request to 'hours'" in str(error)
        assert error.details == "Unknown image file format."
        # After the whole batch, no image that the server can decode is sent twice.
        accepted = [file for _, sent in model.asked if b"X" not in sent for file in sent]
        assert len(accepted) == len(set(accepted))
        assert len(model.asked) <= 2 + 2 * np.log2(count)


def test_the_first_of_several_bad_images_is_named(client):
    assert refused(client, [b"B", b"X1", b"B", b"X2", b"X3"]).row == 1


def test_the_image_is_named_by_its_path_and_its_place_in_the_whole_batch(client, tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(7)]
    for path in paths:
        path.write_bytes(b"X" if path.stem == "5" else b"B")
    for batch_size in (None, 1, 2, 4):
        error = refused(client, paths, batch_size=batch_size)
        assert f"refuses image_bytes[5] ({paths[5]}) of this request" in str(error)
        assert error.row == 5
    with pytest.raises(InvalidRequest, match=r"image_bytes\[1\] \(.*5.png\)"):
        client.features([b"B", paths[5]], model="hours")
    with pytest.raises(InvalidRequest, match=r"image_bytes\[1\] of"):
        client.explain(iter([paths[0], b"X"]), model="hours")


def test_a_template_of_an_earlier_request_changes_nothing(client):
    def files(*texts):
        array = np.empty(len(texts), object)
        array[:] = texts
        return array

    ask = {"model": "hours", "signature": "classify_bytes"}
    client.predict(files(b"B1", b"B2", b"B3"), **ask)
    with pytest.raises(InvalidRequest, match=r"image_bytes\[2\]"):
        client.predict(files(b"B1", b"B2", b"X3"), **ask)


def test_a_row_that_the_server_names_is_not_searched(client, model):
    model.refusal = (
        "assertion failed: [image_bytes[2]: the file is none of JPEG and PNG]\n\t [[{{node map}}]]"
    )
    error = refused(client, [b"B", b"B", b"X"])
    assert error.row == 2
    assert len(model.asked) == 1
    assert str(error).endswith(
        "refuses image_bytes[2] of this request to 'hours'. Received: INVALID_ARGUMENT: "
        "the file is none of JPEG and PNG."
    )
    assert error.details == model.refusal


def test_a_row_of_another_caller_is_not_blamed_on_this_one(client, model):
    model.refusal = "assertion failed: [image_bytes[17]: the file is none of JPEG and PNG]"
    error = refused(client, [b"B", b"X"])
    assert error.row is None
    assert "image_bytes" not in str(error)
    assert "refuses an image of another caller: send this request again" in str(error)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(None, InvalidRequest), ("DEADLINE_EXCEEDED", InvalidRequest), ("OUT_OF_RANGE", None)],
)
def test_without_a_single_bad_row_the_first_error_stays(code, kind):
    """A server may refuse a batch and accept each image, or be gone during the search."""
    served = Brightness()

    def answer(path, request, context):
        if path == methods.PREDICT:
            if not served.asked:
                served.asked.append(request)
                first = "OUT_OF_RANGE" if kind is None else "INVALID_ARGUMENT"
                context.abort(grpc.StatusCode[first], "the first one")
            if code is not None:
                context.abort(grpc.StatusCode[code], "the second one")
        return served(path, request, context)

    with fake_server(answer) as address, Client(address, max_attempts=1) as client:
        error = refused(client, [b"B"] * 4)
    assert (error.row, error.details) == (None, "the first one")
    assert "refuses this request" in str(error)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_images_with_nan_or_infinity_are_not_sent(client, model, value):
    images = np.full((3, 2, 2, 3), 100, np.float32)
    client.predict(images, model="hours")
    model.asked.clear()
    bad = images.copy()
    bad[1, 0, 1, 2] = value
    text = f"Input 'images' must hold finite numbers. Received: {value:g} in images\\[1\\]"
    # With a template of the first request, as float64, and as one of several parts.
    for given, options in ((bad, {}), (bad.astype(np.float64), {}), (bad, {"batch_size": 1})):
        with pytest.raises(UsageError, match=text):
            client.predict(given, model="hours", **options)
    assert model.asked == []


def test_nan_is_sent_to_a_model_of_other_numbers():
    with fake_server(Doubling()) as address, Client(address) as client:
        found = client.predict(np.float32([[np.nan, 1]]), model="m")["y"]
    np.testing.assert_array_equal(found, [[np.nan, 2]])


def limited(limit, **options):
    """Returns a model on a server that takes so many rows at once."""

    def before(number, context):
        if (rows := model.rows[number - 1]) > limit[0]:
            details = f"Task size {rows} is larger than maximum input batch size {limit[0]}"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, details)

    model = Doubling(before, **options)
    return model


@pytest.mark.parametrize("batch_size", [None, 16])
def test_a_batch_is_split_by_the_limit_that_the_server_names(batch_size):
    """The client learns the limit once, also where it has sent a smaller batch before."""
    limit = [8]
    model = limited(limit)
    x = np.arange(40, dtype=np.float32).reshape(20, 2)
    with fake_server(model) as address, Client(address, concurrency=1) as client:
        for rows in (1, 20, 20, 9, 3):
            y = client.predict(x[:rows], model="m", batch_size=batch_size)["y"]
            np.testing.assert_array_equal(y, 2 * x[:rows])
        assert model.rows == [1, batch_size or 20, 8, 8, 4, 8, 8, 4, 8, 1, 3]
        limit[0] = 2
        del model.rows[:]
        client.predict(x[:5], model="m", batch_size=batch_size)
        assert model.rows == [5, 2, 2, 1]
        limit[0] = 1
        del model.rows[:]
        client.predict(x[:2], model="m", batch_size=batch_size)
        assert model.rows == [2, 1, 1]


def test_parts_are_split_by_a_limit_below_the_largest():
    """Also where the last one is smaller than the limit."""
    model = limited([6])
    x = np.arange(40, dtype=np.float32).reshape(20, 2)
    with fake_server(model) as address, Client(address, concurrency=1) as client:
        np.testing.assert_array_equal(client.predict(x, model="m", batch_size=8)["y"], 2 * x)
    assert model.rows == [8, 6, 2, 6, 2, 4]


def test_a_limit_that_a_request_keeps_is_no_reason_to_split_it():
    """A server that refuses as many rows as it names would be asked for ever."""
    text = "Task size 20 is larger than maximum input batch size 20"
    model = Doubling(lambda number, context: context.abort(REFUSED, text))
    with (
        fake_server(model) as address,
        Client(address) as client,
        pytest.raises(InvalidRequest, match="Send at most 20 at once"),
    ):
        client.predict(np.zeros((20, 2), np.float32), model="m")
    assert model.rows == [20]


def test_a_known_request_is_split_when_the_limit_falls():
    """Its template is of one request."""
    limit = [20]
    model = limited(limit)
    x = np.arange(40, dtype=np.float32).reshape(20, 2)
    with fake_server(model) as address, Client(address, concurrency=1) as client:
        for limit[0] in (20, 20, 12):
            np.testing.assert_array_equal(client.predict(x, model="m")["y"], 2 * x)
    assert model.rows == [20, 20, 20, 12, 8]


def test_a_known_request_that_is_refused_is_sent_once():
    """Its template is of one request too, which may have crashed something."""
    model = Doubling(lambda number, context: number > 1 and context.abort(REFUSED, "no such x"))
    with fake_server(model) as address, Client(address) as client:
        client.predict(np.float32([[1, 2]]), model="m")
        with pytest.raises(InvalidRequest, match="no such x"):
            client.predict(np.float32([[3, 4]]), model="m")
    assert model.predicts == 2


def test_a_batch_that_cannot_be_split_is_refused_in_the_servers_words():
    """The first size of the output is fixed, or the limit is no number of rows."""
    x = np.zeros((20, 2), np.float32)
    for model in (limited([8], outputs=(20, 2)), limited([0])):
        with (
            fake_server(model) as address,
            Client(address) as client,
            pytest.raises(InvalidRequest, match=r"larger than maximum input batch size [08]\."),
        ):
            client.predict(x, model="m")
        assert model.rows == [20]


def search(part, bad=(), details="no", code="INVALID_ARGUMENT", hint=None, failure=None):
    """Looks for a refused row; returns it, or the error, and the rows that were sent again."""
    sent = []

    def send(arrays):
        [rows] = {name: values.tolist() for name, values in arrays.items()}.values()
        sent.append(rows)
        if failure is not None:
            raise failure
        if set(rows) & set(bad):
            raise InvalidRequest("refused", code=code, details=details)
        return None
        yield

    error = InvalidRequest("refused", code=code, details=details, hint=hint, request_id="r-7")
    found = find_refused_row(error, part, send)
    with pytest.raises((StopIteration, InvalidRequest)) as caught:
        next(found)
    end = caught.value
    return (end.value if isinstance(end, StopIteration) else end), sent


def files(text):
    return {"x": np.array([letter.encode() for letter in text], object)}


def test_a_refused_file_is_found_by_halves():
    """No file that the server has taken is sent again, and never the whole batch."""
    assert search(files("abcd"), [b"c"]) == (2, [[b"a", b"b"], [b"c"]])
    assert search(files("abcd"), [b"a"]) == (0, [[b"a", b"b"], [b"a"]])
    assert search(files("abcd"), [b"d"]) == (3, [[b"a", b"b"], [b"c"], [b"d"]])
    assert search(files("abcde"), [b"b", b"e"])[0] == 1
    assert search(files("a"), [b"a"]) == (0, [])
    # The server takes each of them now.
    assert search(files("ab")) == (None, [[b"a"], [b"b"]])
    gone = ServerError("gone", code="UNAVAILABLE", details="")
    assert search(files("ab"), failure=gone) == (None, [[b"a"]])


@pytest.mark.parametrize(
    ("part", "options"),
    [
        ({}, {}),
        ({"x": np.array(b"a", object)}, {}),
        ({"x": np.zeros((2, 3))}, {}),
        ({"x": np.zeros(2)}, {}),
        ({"x": np.array([[b"a"], [b"b"]], object)}, {}),
        ({**files("ab"), "y": np.zeros(2)}, {}),
        (files("ab"), {"code": "OUT_OF_RANGE"}),
        (files("ab"), {"hint": "Send at most 1 at once"}),
    ],
)
def test_rows_that_are_not_looked_for(part, options):
    assert search(part, [b"a"], **options) == (None, [])


def test_rows_that_the_server_names():
    numbers = {"x": np.zeros((3, 2)), "y": np.zeros(3)}
    for details, row in (("x[0]: bad", 0), ("y[2]: bad", 2)):
        assert search(numbers, details=details) == (row, [])
    # A row of another caller, whose request the server has merged with this one.
    error, sent = search(numbers, details="x[3]: bad")
    assert (error.code, error.details, error.row, error.request_id, sent) == (
        "INVALID_ARGUMENT",
        "x[3]: bad",
        None,
        "r-7",
        [],
    )
    assert error.hint.endswith("refuses an image of another caller: send this request again")
    # Another input, and a number that is none.
    for details in ("z[1]: bad", "x[1234567890]: bad", "x[-1]: bad"):
        assert search(numbers, details=details) == (None, [])


def test_the_newest_version_computes_all_parts():
    """The parts of an older one are asked for again; others are not, and rows keep their order."""
    calls = Calls(ChannelOptions("localhost:1"), 1, 2)
    spec = TensorSpec("float32", (None, 1))
    options = calls.options("m", batch_size=1)
    calls.known_signatures[options.target] = {"s": Signature({"x": spec}, {"y": spec})}
    ask = predict_flow(calls, {"x": np.float32([[1], [2], [3]])}, "s", None, options)
    step = next(ask)
    assert (len(list(step.flows)), step.limit) == (3, 2)
    first = [(version, {"y": np.float32([[value]])}) for version, value in ((1, 7), (2, 8), (1, 9))]
    step = ask.send(first)
    again = [next(flow) for flow in step.flows]
    sent = [pb.PredictRequest.FromString(one.request) for one in again]
    assert [decode_tensor(one.inputs["x"]).tolist() for one in sent] == [[[1]], [[3]]]
    assert [one.model_spec.version.value for one in sent] == [2, 2]
    # A row that is refused now has its place in the whole batch.
    ask_again = predict_flow(calls, {"x": np.float32([[1], [2], [3]])}, "s", None, options)
    next(ask_again)
    flows = list(ask_again.send(first).flows)
    next(flows[1])
    with pytest.raises(InvalidRequest, match=r"refuses x\[2\] of this request") as caught:
        flows[1].throw(RpcFailure("INVALID_ARGUMENT", "x[0]: bad", "r-7"))
    assert (caught.value.row, caught.value.request_id) == (2, "r-7")
    with pytest.raises(StopIteration) as end:
        ask.send([(2, {"y": np.float32([[value]])}) for value in (70, 90)])
    assert end.value.value["y"].tolist() == [[70], [8], [90]]


def test_parts_that_do_not_fit_together():
    calls = Calls(ChannelOptions("localhost:1"), 1, 1)
    spec = TensorSpec("float32", (None, None))
    options = calls.options("m", batch_size=1)
    calls.known_signatures[options.target] = {"s": Signature({"x": spec}, {"y": spec})}
    for second in ({"y": np.zeros((1, 2))}, {"z": np.zeros((1, 1))}):
        ask = predict_flow(calls, np.float32([[1], [2]]), "s", (), options)
        next(ask)
        with pytest.raises(InvalidResponse, match="its parts do not fit together"):
            ask.send([(1, {"y": np.zeros((1, 1))}), (1, second)])


def test_names_that_a_signature_does_not_have():
    calls = Calls(ChannelOptions("localhost:1"), 1, 1)
    spec = TensorSpec("float32", (None,))
    target = calls.options("m").target
    for signature, outputs, text in (("t", (), "Unknown signature 't'"), ("s", "z", "output 'z'")):
        calls.known_signatures[target] = {"s": Signature({"x": spec}, {"y": spec})}
        ask = predict_flow(calls, [1.0], signature, outputs, calls.options("m"))
        # What is cached may be of a version that was replaced, so that the server is asked first.
        assert next(ask).method == methods.GET_MODEL_METADATA
        calls.known_signatures[target] = {"s": Signature({"x": spec}, {"y": spec})}
        with pytest.raises(UsageError, match=text):
            list(predict_calls._bind(calls, [1.0], signature, tuple(outputs), calls.options("m")))
