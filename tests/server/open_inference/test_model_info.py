"""What the protocol tells of models, without a server."""

from types import SimpleNamespace

import pytest

from cnnkit.server.open_inference.model_info import (
    describe_signature,
    find_signature,
    is_model_ready,
)
from cnnkit.server.status_error import StatusError, invalid_argument
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import open_inference_pb2 as v2


class Repository:
    """Model "m" with versions 2 and 10, of which each has the same signatures."""

    def __init__(self):
        self.definitions = pb.SignatureDefMap()
        for name in ("serving_default", "b", "__saved_model_init_op"):
            self.definitions.signature_def[name].SetInParent()
        definition = self.definitions.signature_def["b"]
        for name, dtype, sizes in (("z", pb.DT_HALF, (-1, 3)), ("a", pb.DT_STRING, None)):
            definition.inputs[name].dtype = dtype
            definition.inputs[name].tensor_shape.unknown_rank = sizes is None
            for size in sizes or ():
                definition.inputs[name].tensor_shape.dim.add(size=size)
        definition.outputs["y"].dtype = pb.DT_FLOAT

    def versions(self, name):
        return [10, 2] if name == "m" else []

    def find(self, spec):
        if spec.name != "m":
            raise invalid_argument("no such model")
        version = spec.version.value or 10
        return SimpleNamespace(name="m", version=version, definitions=self.definitions)


def test_the_signature_that_a_name_stands_for():
    repository = Repository()
    for name, version, found in (
        ("m", "", (10, "serving_default")),
        ("m:b", "2", (2, "b")),
    ):
        servable, signature, definition = find_signature(name, version, repository)
        assert (servable.version, signature) == found
        assert definition == repository.definitions.signature_def[signature]
        assert is_model_ready(name, version, repository)
    with pytest.raises(StatusError) as caught:
        find_signature("m:c\n", "", repository)
    assert (caught.value.code.name, caught.value.details) == (
        "NOT_FOUND",
        "Model m has no signature c\\n; name one of m:b, m:serving_default",
    )
    assert not is_model_ready("m:c", "", repository)
    assert not is_model_ready("n", "", repository)


def test_the_tensors_of_a_signature():
    """By name; a shape of any rank is that of one size."""
    found = describe_signature(v2.ModelMetadataRequest(name="m:b", version="2"), Repository())
    assert (found.name, list(found.versions)) == ("m:b", ["2", "10"])
    assert [(one.name, one.datatype, list(one.shape)) for one in found.inputs] == [
        ("a", "BYTES", [-1]),
        ("z", "FP16", [-1, 3]),
    ]
    assert [(one.name, one.datatype, list(one.shape)) for one in found.outputs] == [
        ("y", "FP32", [])
    ]
