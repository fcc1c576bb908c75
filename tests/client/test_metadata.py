"""Signatures and states of versions, as servers send them."""

from cnnkit.client import Client, VersionStatus
from cnnkit.client.metadata import signatures
from cnnkit.wire import cnnkit_serving_pb2 as pb
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
