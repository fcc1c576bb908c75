"""The schema is the one the generated code was made from, and TensorFlow Serving's on the wire."""

import subprocess
import sys
from pathlib import Path

import pytest
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow.core.protobuf import error_codes_pb2, meta_graph_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2,
    regression_pb2,
    status_pb2,
)
from tensorflow_serving.config import (
    file_system_storage_path_source_pb2,
    model_server_config_pb2,
)
from tritonclient.grpc import service_pb2 as triton

from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire import open_inference_pb2 as v2

ROOT = Path(__file__).resolve().parents[2]

POLICY = pb.FileSystemStoragePathSourceConfig.ServableVersionPolicy
SOURCE = file_system_storage_path_source_pb2.FileSystemStoragePathSourceConfig
THEIR_POLICY = SOURCE.ServableVersionPolicy

PAIRS = [
    (pb.TensorShapeProto, tensor_shape_pb2.TensorShapeProto),
    (pb.TensorShapeProto.Dim, tensor_shape_pb2.TensorShapeProto.Dim),
    (pb.TensorProto, tensor_pb2.TensorProto),
    (pb.ModelSpec, model_pb2.ModelSpec),
    (pb.PredictRequest, predict_pb2.PredictRequest),
    (pb.PredictResponse, predict_pb2.PredictResponse),
    (pb.TensorInfo, meta_graph_pb2.TensorInfo),
    (pb.SignatureDef, meta_graph_pb2.SignatureDef),
    (pb.SignatureDefMap, get_model_metadata_pb2.SignatureDefMap),
    (pb.GetModelMetadataRequest, get_model_metadata_pb2.GetModelMetadataRequest),
    (pb.GetModelMetadataResponse, get_model_metadata_pb2.GetModelMetadataResponse),
    (pb.StatusProto, status_pb2.StatusProto),
    (pb.GetModelStatusRequest, get_model_status_pb2.GetModelStatusRequest),
    (pb.ModelVersionStatus, get_model_status_pb2.ModelVersionStatus),
    (pb.GetModelStatusResponse, get_model_status_pb2.GetModelStatusResponse),
    (pb.FileSystemStoragePathSourceConfig, SOURCE),
    (POLICY, THEIR_POLICY),
    (POLICY.Latest, THEIR_POLICY.Latest),
    (POLICY.All, THEIR_POLICY.All),
    (POLICY.Specific, THEIR_POLICY.Specific),
    (pb.PredictLog, prediction_log_pb2.PredictLog),
    (pb.PredictionLog, prediction_log_pb2.PredictionLog),
    (pb.ModelConfigList, model_server_config_pb2.ModelConfigList),
    (pb.ModelConfigList.ModelConfig, model_server_config_pb2.ModelConfig),
    (pb.ModelServerConfig, model_server_config_pb2.ModelServerConfig),
    (pb.ReloadConfigRequest, model_management_pb2.ReloadConfigRequest),
    (pb.ReloadConfigResponse, model_management_pb2.ReloadConfigResponse),
    (pb.ClassificationRequest, classification_pb2.ClassificationRequest),
    (pb.RegressionRequest, regression_pb2.RegressionRequest),
    (pb.InferenceTask, inference_pb2.InferenceTask),
    (pb.MultiInferenceRequest, inference_pb2.MultiInferenceRequest),
]

ENUMS = [
    (pb.DataType, types_pb2.DataType),
    (pb.Code, error_codes_pb2.Code),
    (pb.ModelVersionStatus.State, get_model_status_pb2.ModelVersionStatus.State),
]


def wire(descriptor):
    """What of each field is seen in the bytes."""
    return {
        field.number: (
            field.name,
            field.type,
            field.is_repeated,
            field.message_type.GetOptions().map_entry if field.message_type else None,
            field.containing_oneof.name if field.containing_oneof else None,
        )
        for field in descriptor.fields
    }


def names_of_ours(descriptor):
    yield descriptor.full_name
    for nested in descriptor.nested_types:
        if not nested.GetOptions().map_entry:
            yield from names_of_ours(nested)


def test_every_message_and_enum_is_compared():
    declared = {
        name
        for message in pb.DESCRIPTOR.message_types_by_name.values()
        for name in names_of_ours(message)
    }
    assert declared == {ours.DESCRIPTOR.full_name for ours, _ in PAIRS}
    enums = set(pb.DESCRIPTOR.enum_types_by_name)
    assert enums == {"DataType", "Code"}


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda side: side.DESCRIPTOR.full_name)
def test_fields_have_the_same_numbers_and_types(ours, theirs):
    theirs = wire(theirs.DESCRIPTOR)
    for number, field in wire(ours.DESCRIPTOR).items():
        assert field == theirs[number]


def messages_of(parent):
    for message in parent:
        if not message.GetOptions().map_entry:
            yield message
            yield from messages_of(message.nested_types)


@pytest.mark.parametrize(
    "ours",
    list(messages_of(v2.DESCRIPTOR.message_types_by_name.values())),
    ids=lambda message: message.full_name,
)
def test_fields_of_the_open_inference_protocol(ours):
    """As NVIDIA's client has them, which adds some of its own."""
    name = ours.full_name.replace("cnnkit.inference.", "inference.")
    theirs = wire(triton.DESCRIPTOR.pool.FindMessageTypeByName(name))
    for number, field in wire(ours).items():
        assert field == theirs[number]


@pytest.mark.parametrize(("ours", "theirs"), ENUMS, ids=lambda side: side.DESCRIPTOR.full_name)
def test_enums_have_the_same_numbers(ours, theirs):
    assert set(ours.items()) <= set(theirs.items())


def test_method_paths_and_the_packed_type():
    files = {"PredictionService": prediction_service_pb2, "ModelService": model_service_pb2}
    declared = {
        f"/{service.full_name}/{method.name}"
        for name, module in files.items()
        for service in [module.DESCRIPTOR.services_by_name[name]]
        for method in service.methods
    }
    ours = {
        methods.PREDICT,
        methods.GET_MODEL_METADATA,
        methods.CLASSIFY,
        methods.REGRESS,
        methods.MULTI_INFERENCE,
        methods.GET_MODEL_STATUS,
        methods.RELOAD_CONFIG,
    }
    assert ours <= declared
    packed = get_model_metadata_pb2.GetModelMetadataResponse()
    packed.metadata["x"].Pack(get_model_metadata_pb2.SignatureDefMap())
    assert packed.metadata["x"].type_url == methods.SIGNATURE_DEF_TYPE_URL


def test_generated_code_is_up_to_date(tmp_path):
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{ROOT / 'serving'}",
            f"--python_out={tmp_path}",
            f"--pyi_out={tmp_path}",
            str(ROOT / "serving" / "cnnkit_serving.proto"),
            str(ROOT / "serving" / "open_inference.proto"),
        ],
        check=True,
        timeout=60,
    )
    for name in ("cnnkit_serving_pb2", "open_inference_pb2"):
        for kind in (".py", ".pyi"):
            found = (tmp_path / f"{name}{kind}").read_text()
            assert found == (ROOT / "cnnkit" / "wire" / f"{name}{kind}").read_text()


def test_generated_code_loads_on_every_protobuf_that_is_allowed():
    """Generated code runs on its own release, later ones of it, and those of the next major."""
    text = (ROOT / "cnnkit" / "wire" / "cnnkit_serving_pb2.py").read_text()
    assert "# Protobuf Python Version: 6.31.1\n" in text
