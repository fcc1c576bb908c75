"""Version folders, their names, and links in them."""

import os
import shutil
import time
from pathlib import Path

import grpc
import pytest

from cnnkit.client import ModelNotFound
from cnnkit.errors import CnnkitError, UsageError
from cnnkit.server import EmbeddedServer
from cnnkit.server.version_folders import newest_version, version_fingerprint, version_folders
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from tests.helpers.busy_server import check_answer, predict_request, send
from tests.helpers.polled_server import IMAGE, serve, version_states


def test_a_link_out_of_the_models_folder_is_not_followed(tmp_path, model_folder, colors_folder):
    (model_folder / "2").symlink_to(colors_folder / "2")
    shutil.copytree(model_folder / "1", model_folder / "3")
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    (model_folder / "3" / "assets").mkdir(exist_ok=True)
    (model_folder / "3" / "assets" / "labels.txt").symlink_to(secret)
    with serve({"colors": model_folder}) as (_, client):
        assert version_states(client) == {3: "END", 2: "END", 1: "AVAILABLE"}
        for status in client.status("colors"):
            assert str(tmp_path) not in str(status)
        for name in ("../colors", "colors/1", "../../etc/passwd", str(colors_folder), "."):
            with pytest.raises(ModelNotFound):
                client.predict(IMAGE, model=name)


def test_links_inside_the_folder_and_to_it_are_followed(tmp_path, model_folder):
    """Releases are often laid out with a store next to the versions and a link to the folder."""
    (model_folder / "1").rename(model_folder / "store")
    (model_folder / "1").symlink_to("store")
    (tmp_path / "current").symlink_to(model_folder)
    with serve({"colors": tmp_path / "current"}) as (_, client):
        assert version_states(client) == {1: "AVAILABLE"}


def test_invalid_version_numbers_are_ignored(model_folder):
    for name in ("9" * 20, "9" * 200, "-2", "2.0", "²", "0x3"):
        (model_folder / name).mkdir()
    with serve({"colors": Path(model_folder)}) as (server, _):
        assert server.repository.versions("colors") == [1]


def test_the_versions_of_a_folder(tmp_path):
    """The largest number is that of 64 bits with a sign; files are no versions."""
    for name in ("9", "10", "007", str(2**63 - 1), str(2**63)):
        (tmp_path / name).mkdir()
    (tmp_path / "11").write_text("")
    found = version_folders(tmp_path)
    assert list(found) == [2**63 - 1, 10, 9, 7]
    assert found[7] == tmp_path / "007"
    assert newest_version(tmp_path) == tmp_path / str(2**63 - 1)
    version = tmp_path / "9"
    (version / "saved_model.pb").write_text("")
    assert newest_version(version) == version
    with pytest.raises(UsageError, match=f"is a version of a model.* Use {tmp_path}\\.$"):
        version_folders(version)
    with pytest.raises(UsageError, match="is a version of a model.* Move it into NAME/1\\.$"):
        version_folders(version.rename(tmp_path / "nine"))


def test_the_fingerprint_of_a_version(tmp_path):
    """Changed by a size or a time, and by nothing else; a link to nowhere is no file."""
    for name in ("b", "a/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x" * len(name))
        os.utime(tmp_path / name, ns=(0, 7 * len(name)))
    (tmp_path / "away").symlink_to("none")
    assert version_fingerprint(tmp_path) == (("a/c", 3, 21), ("b", 1, 7))


def test_a_link_put_in_place_of_a_version_that_is_served(tmp_path, colors_folder):
    """A loaded version stays as it was; a version that is loaded later is checked again."""
    folder, outside = tmp_path / "colors", tmp_path / "outside"
    shutil.copytree(colors_folder / "2", folder / "1")
    shutil.copytree(colors_folder / "1", outside)
    with (
        EmbeddedServer({"colors": folder}, poll_seconds=0.05) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        raw = predict_request().SerializeToString()
        check_answer(send(channel, raw).result())
        shutil.rmtree(folder / "1")
        (folder / "1").symlink_to(outside)
        (folder / "2").symlink_to(outside)
        status = pb.GetModelStatusRequest(model_spec=pb.ModelSpec(name="colors"))
        end = time.monotonic() + 30
        states = {}
        while states.get(2) != pb.ModelVersionStatus.END:
            assert time.monotonic() < end
            raw_status = send(
                channel, status.SerializeToString(), methods.GET_MODEL_STATUS
            ).result()
            versions = pb.GetModelStatusResponse.FromString(raw_status).model_version_status
            states = {version.version: version.state for version in versions}
            check_answer(send(channel, raw).result())
        assert states[1] == pb.ModelVersionStatus.AVAILABLE
    with pytest.raises(UsageError, match="is a link to a file outside of the model folder"):
        EmbeddedServer({"colors": folder})


def test_folders_that_hold_no_model(tmp_path, colors_folder):
    def problem(folder):
        with pytest.raises(CnnkitError) as caught:
            EmbeddedServer({"m": folder})
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "Model folder 'none' does not exist" in problem(tmp_path / "none")
    assert "Folder '2' is a version of a model" in problem(colors_folder / "2")
    empty = tmp_path / "empty"
    (empty / "latest").mkdir(parents=True)
    assert "Model folder 'empty' holds no version" in problem(empty)
    (empty / "3").mkdir()
    assert "Version folder '3' is incomplete" in problem(empty)
    (empty / "3" / "saved_model.pb").write_bytes(b"\xff\xff")
    assert "Version 3 of model 'm' cannot be loaded" in problem(empty)
    (empty / "3" / "saved_model.pb").write_bytes(b"")
    assert "saved_model.pb must hold a graph with the tag 'serve'" in problem(empty)
    # As after a copy that was cut off: the graph is there, its variables are not.
    (empty / "3" / "saved_model.pb").write_bytes(
        (colors_folder / "2" / "saved_model.pb").read_bytes()
    )
    assert "Version 3 of model 'm' cannot be loaded" in problem(empty)
