"""HandleReloadConfigRequest changes the models, or changes nothing."""

import grpc
import pytest

from cnnkit.client import ModelNotFound
from cnnkit.server import EmbeddedServer
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from tests.helpers.polled_server import IMAGE, serve, version_states
from tests.helpers.serving import check_gray, predict_gray


@pytest.fixture
def reload():
    def call(server, *configs):
        request = pb.ReloadConfigRequest()
        request.config.model_config_list.config.extend(configs)
        with grpc.insecure_channel(server.address) as channel:
            raw = channel.unary_unary(methods.RELOAD_CONFIG)(
                request.SerializeToString(), timeout=30
            )
        status = pb.ReloadConfigResponse.FromString(raw).status
        return pb.Code.Name(status.error_code), status.error_message

    return call


def model_config(name, path, **fields):
    return pb.ModelConfigList.ModelConfig(name=name, base_path=str(path), **fields)


def test_reload_changes_models_versions_and_labels(models_config, model_folder, reload):
    with serve(models_config) as (server, client):
        both = pb.FileSystemStoragePathSourceConfig.ServableVersionPolicy(
            latest={"num_versions": 2}
        )
        answered = reload(
            server,
            model_config(
                "colors", model_folder, model_version_policy=both, version_labels={"stable": 3}
            ),
            model_config("shades", "colors"),
        )
        assert answered == ("OK", "")
        assert version_states(client)[3] == version_states(client)[2] == "AVAILABLE"
        assert version_states(client)[1] == "END"
        assert version_states(client, "shades") == {3: "AVAILABLE"}
        assert client.predict(IMAGE, model="colors", version_label="stable")
        with pytest.raises(ModelNotFound):
            client.status("tints")


def test_a_failed_reload_changes_nothing(tmp_path, models_config, model_folder, reload):
    outside = tmp_path.parent
    with serve(models_config) as (server, client):
        before = server.repository.configs
        assert reload(
            server, model_config("colors", model_folder, version_labels={"stable": 7})
        ) == (
            "FAILED_PRECONDITION",
            "Request to assign label to version 7 of model colors, which is not currently "
            "available for inference",
        )
        for path in (outside, "../..", "/", str(model_folder / ".." / ".."), "/etc"):
            code, text = reload(server, model_config("x", path))
            assert code == "INVALID_ARGUMENT"
            assert text == "The base_path of model 'x' is outside of the server's model folders"
        code, text = reload(server, model_config("x", model_folder.with_name("none")))
        assert (code, text) == ("INVALID_ARGUMENT", "Model folder 'none' does not exist")
        assert server.repository.configs == before
        assert version_states(client) == {2: "AVAILABLE", 1: "AVAILABLE"}


def test_a_reload_that_would_reach_one_of_several_processes_is_refused(colors_folder):
    request = pb.ReloadConfigRequest()
    request.config.model_config_list.config.add(name="other", base_path="elsewhere")
    with (
        EmbeddedServer({"colors": colors_folder}, reuse_port=True) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(methods.RELOAD_CONFIG)(request.SerializeToString(), timeout=60)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "This server runs several processes" in caught.value.details()
        check_gray(predict_gray(channel))
