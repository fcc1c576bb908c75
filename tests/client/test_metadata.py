"""Signatures and states of versions, as servers send them."""

import pytest

from cnnkit.client import Client, Signature, TensorSpec, VersionStatus
from cnnkit.client.metadata import describe_states, signatures, version_statuses
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.dtypes import TensorError
from tests.helpers.fake_servers import fake_server


def test_metadata_of_an_unknown_type_and_rank():
    info = pb.TensorInfo(dtype=20)
    info.tensor_shape.unknown_rank = True
    definitions = pb.SignatureDefMap(signature_def={"f": pb.SignatureDef(inputs={"x": info})})
    spec = signatures(definitions.SerializeToString())["f"].inputs["x"]
    assert (spec.dtype, spec.shape, str(spec)) == (
        "data type 20",
        None,
        "data type 20 of any shape",
    )


def test_an_unknown_state_is_a_number():
    response = pb.GetModelStatusResponse()
    response.model_version_status.add(version=1, state=77)
    answer = response.SerializeToString()
    with fake_server(lambda *call: answer) as address, Client(address) as client:
        assert client.status("m") == [VersionStatus(1, "77", "OK", "")]


def test_what_signatures_say():
    """By name; an initializer is none; a negative size is free."""
    definitions = pb.SignatureDefMap()
    definitions.signature_def["__saved_model_init_op"].outputs["a"].dtype = pb.DT_FLOAT
    for name in ("b", "a"):
        info = definitions.signature_def[name].inputs["x"]
        info.dtype = pb.DT_STRING
        info.tensor_shape.dim.add(size=-1)
        definitions.signature_def[name].outputs["y"].dtype = pb.DT_HALF
    found = signatures(definitions.SerializeToString())
    assert list(found) == ["a", "b"]
    assert found["a"] == Signature(
        {"x": TensorSpec("string", (None,))}, {"y": TensorSpec("float16", ())}
    )
    shapes = ((None,), (0, 3), ())
    assert [str(TensorSpec("int8", shape)) for shape in shapes] == [
        "int8 (n,)",
        "int8 (0, 3)",
        "int8 ()",
    ]


def test_a_server_lists_ten_thousand_at_most():
    """An error, not the memory and the time that more of them would take."""
    for count, fits in ((3332, True), (3333, True), (3334, False)):
        definitions = pb.SignatureDefMap()
        for number in range(count):
            definition = definitions.signature_def[str(number)]
            definition.inputs["x"].SetInParent()
            definition.outputs["y"].SetInParent()
        if fits:
            assert len(signatures(definitions.SerializeToString())) == count
        else:
            with pytest.raises(TensorError) as caught:
                signatures(definitions.SerializeToString())
            assert str(caught.value) == (
                "`raw` must not list so many signatures, inputs and outputs of one model. "
                "Expected: 10,000 at most. Received: 10,002."
            )
    response = pb.GetModelStatusResponse()
    for version in range(10_000):
        response.model_version_status.add(version=version)
    assert version_statuses(response.SerializeToString())[0].version == 9999
    response.model_version_status.add()
    with pytest.raises(TensorError, match="so many versions of one model"):
        version_statuses(response.SerializeToString())


def test_states_in_words():
    response = pb.GetModelStatusResponse()
    for version in range(1, 12):
        added = response.model_version_status.add(
            version=version, state=pb.ModelVersionStatus.AVAILABLE
        )
        added.status.error_code = pb.NOT_FOUND
        added.status.error_message = "gone"
    found = version_statuses(response.SerializeToString())
    assert found[0] == VersionStatus(11, "AVAILABLE", "NOT_FOUND", "gone")
    shown = ", ".join(f"version {version} AVAILABLE" for version in range(11, 1, -1))
    assert describe_states(found) == f"{shown} and 1 more"
    assert describe_states(found[1:]) == shown.replace("version 11 AVAILABLE, ", "") + (
        ", version 1 AVAILABLE"
    )
    assert describe_states([]) == ""
