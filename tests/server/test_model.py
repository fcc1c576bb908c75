"""Versions that are written, broken, removed or added again."""

import logging
import shutil
import time

import grpc
import pytest

from cnnkit.errors import RunError
from cnnkit.server import model
from cnnkit.server.free_memory import MemoryShortageError
from cnnkit.server.model import ServedModel, VersionState
from cnnkit.server.model_config import ModelConfig, parse_version_policy
from cnnkit.wire import cnnkit_serving_pb2 as pb
from tests.helpers.polled_server import (
    POLL,
    predict,
    serve,
    version_states,
    wait_for,
    wait_for_polls,
)


def test_a_version_is_left_alone_while_it_is_written(model_folder, colors_folder, caplog):
    source = colors_folder / "2"
    with serve({"colors": model_folder}) as (_, client):
        (model_folder / "2" / "variables").mkdir(parents=True)
        # As in an upload: first the graph, then the weights in pieces.
        shutil.copy(source / "saved_model.pb", model_folder / "2")
        for name in ("variables.index", "variables.data-00000-of-00001"):
            data = (source / "variables" / name).read_bytes()
            with (model_folder / "2" / "variables" / name).open("wb", buffering=0) as file:
                for start in range(0, len(data), 1 + len(data) // 20):
                    file.write(data[start : start + 1 + len(data) // 20])
                    assert version_states(client)[1] == "AVAILABLE"
                    time.sleep(POLL / 5)
        wait_for(lambda: version_states(client).get(2) == "AVAILABLE")
        wait_for(lambda: version_states(client)[1] == "END")
    assert "is not refreshed" not in caplog.text


@pytest.mark.parametrize(
    "fault", ["no graph", "no graph at all", "half a graph", "no weights", "half the weights"]
)
def test_a_broken_version_is_refused_and_the_old_one_answers(
    model_folder, add_version, fault, caplog
):
    with (
        serve({"colors": model_folder}) as (server, client),
        grpc.insecure_channel(server.address) as channel,
    ):
        aside = model_folder / "aside"
        shutil.copytree(model_folder / "1", aside)
        graph, weights = aside / "saved_model.pb", aside / "variables/variables.data-00000-of-00001"
        match fault:
            case "no graph":
                graph.write_bytes(b"")
            case "no graph at all":
                graph.unlink()
            case "half a graph":
                graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])
            case "no weights":
                shutil.rmtree(aside / "variables")
            case "half the weights":
                weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
        aside.rename(model_folder / "2")
        wait_for(lambda: version_states(client).get(2) == "END")
        [status] = [status for status in client.status("colors") if status.version == 2]
        details = {
            "no graph": "saved_model.pb must hold a graph with the tag 'serve'",
            "no graph at all": "Version folder '2' is incomplete",
        }
        assert details.get(fault, "Version 2 of model 'colors' cannot be loaded") in str(status)
        assert str(model_folder) not in str(status)
        wait_for_polls(server)
        assert predict(channel)[0] == 1
        # Logged once, not at every poll.
        assert caplog.text.count("version 2 is not served") == 1
        # A repaired version is loaded; a later version does not wait for the repair.
        add_version(3)
        wait_for(lambda: version_states(client).get(3) == "AVAILABLE")
        shutil.rmtree(model_folder / "3")
        shutil.rmtree(model_folder / "2")
        add_version(2)
        wait_for(lambda: version_states(client).get(2) == "AVAILABLE")
        assert predict(channel)[0] == 2


def test_removing_the_newest_version_returns_to_the_one_before(model_folder, add_version):
    add_version(2)
    with (
        serve({"colors": model_folder}) as (server, client),
        grpc.insecure_channel(server.address) as channel,
    ):
        assert version_states(client) == {2: "AVAILABLE"}
        shutil.rmtree(model_folder / "2")
        wait_for(lambda: version_states(client).get(1) == "AVAILABLE")
        assert predict(channel)[0] == 1


def test_the_last_version_stays_when_its_folder_is_removed(model_folder, caplog):
    with (
        serve({"colors": model_folder}) as (server, client),
        grpc.insecure_channel(server.address) as channel,
    ):
        model_folder.rename(model_folder.with_name("elsewhere"))
        wait_for(lambda: "is not refreshed" in caplog.text)
        wait_for_polls(server)
        assert caplog.text.count("is not refreshed") == 1
        assert predict(channel)[0] == 1
        assert version_states(client) == {1: "AVAILABLE"}


def test_a_server_starts_with_the_newest_version_that_can_be_loaded(model_folder, caplog):
    (model_folder / "2").mkdir()
    with serve({"colors": model_folder}) as (_, client):
        assert version_states(client) == {2: "END", 1: "AVAILABLE"}
    assert "version 2 is not served" in caplog.text


class Folder:
    """A model folder without graphs, its model, and the versions that were loaded."""

    def __init__(self, folder, policy="latest"):
        self.folder = folder
        self.loaded = []
        self.write(1)
        config = ModelConfig("m", folder, parse_version_policy(policy))
        self.model = ServedModel(config, lambda name, version, path: self.loaded.append(version))
        self.model.refresh()

    def write(self, version, text=""):
        (self.folder / str(version)).mkdir(parents=True, exist_ok=True)
        (self.folder / str(version) / "saved_model.pb").write_text(text)

    def poll(self):
        """Returns the served versions after a poll."""
        self.model.refresh(wait_until_stable=True)
        return sorted(self.model.servables)


def test_versions_that_arrive_at_every_poll_are_loaded(tmp_path):
    """Of 120 versions, each of which arrived before the one before it was loaded, none was."""
    folder = Folder(tmp_path)
    assert folder.poll() == [1]
    for version in range(2, 122):
        folder.write(version)
        assert folder.poll() == [max(version - 1, 1)]
    assert folder.poll() == [121]
    assert folder.loaded == list(range(1, 122))


def test_versions_that_arrive_while_one_is_loaded_are_skipped(tmp_path):
    folder = Folder(tmp_path, "latest:2")
    for newest in range(10, 100, 10):
        for version in range(newest - 9, newest):
            folder.write(version)
        folder.poll()
        folder.write(newest)
        assert folder.poll() == [newest - 2, newest - 1]


def test_a_version_that_is_still_written_does_not_hold_back_the_one_before(tmp_path, caplog):
    folder = Folder(tmp_path)
    folder.write(2)
    for size in range(40):
        folder.write(3, "x" * size)
        assert folder.poll() == ([2] if size else [1])
    assert folder.loaded == [1, 2]
    text = "version 3 is not served yet: its files changed at each of 30 polls"
    assert caplog.text.count(text) == 1


def test_an_older_version_does_not_take_the_place_of_a_served_one(tmp_path):
    folder = Folder(tmp_path)
    folder.write(3)
    folder.poll()
    assert folder.poll() == [3]
    for size in range(4):
        folder.write(4, "x" * size)
        folder.write(2, "y" * min(size, 1))
        assert folder.poll() == [3]
    assert folder.loaded == [1, 3]


def test_a_version_that_did_not_fit_into_memory_is_tried_again(tmp_path, monkeypatch):
    now, full = [0.0], [True]
    monkeypatch.setattr(model.time, "monotonic", lambda: now[0])
    folder = Folder(tmp_path)

    def load(name, version, path):
        folder.loaded.append(version)
        if full[0]:
            raise MemoryShortageError("Memory is full")

    folder.model._load = load
    folder.write(2)
    for _ in range(10):
        assert folder.poll() == [1]
    assert folder.loaded == [1, 2]
    now[0] += 59.9
    assert folder.poll() == [1]
    assert folder.loaded == [1, 2]
    # A minute, as the hint of the error says.
    now[0] = 60.0
    assert folder.poll() == [1]
    assert folder.loaded == [1, 2, 2]
    now[0] += 60
    full[0] = False
    assert folder.poll() == [2]


def test_a_version_of_another_fault_is_tried_again_when_its_files_change(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(model.time, "monotonic", lambda: now[0])
    folder = Folder(tmp_path)
    faults = [MemoryShortageError("Memory is full"), RunError(f"{tmp_path}/2/x is broken"), None]

    def load(name, version, path):
        folder.loaded.append((name, version, path.name))
        if fault := faults.pop(0):
            raise fault

    folder.model._load = load
    folder.write(2)
    folder.poll()
    folder.poll()
    now[0] += 61
    # What is broken is no longer tried again by the clock.
    for _ in range(3):
        assert folder.poll() == [1]
        now[0] += 61
    assert folder.loaded == [1, *[("m", 2, "2")] * 2]
    state = folder.model.states[2]
    assert (state.state, state.code, state.details) == (
        pb.ModelVersionStatus.END,
        pb.FAILED_PRECONDITION,
        "<path> is broken",
    )
    folder.write(2, "x")
    assert folder.poll() == [1]
    assert folder.poll() == [2]
    assert folder.model.states == {
        2: VersionState(pb.ModelVersionStatus.AVAILABLE, pb.OK, ""),
        1: VersionState(pb.ModelVersionStatus.END, pb.OK, ""),
    }
    assert list(folder.model.states) == [2, 1]


def test_the_states_of_sixteen_ended_versions_are_kept(tmp_path):
    folder = Folder(tmp_path)
    for version in range(2, 21):
        folder.write(version)
        folder.poll()
        assert folder.poll() == [version]
    assert list(folder.model.states) == list(range(20, 3, -1))
    ended = {number for number, known in folder.model.states.items() if known.code == pb.OK}
    assert len(ended) == 17


def test_a_version_that_was_removed_is_forgotten(tmp_path):
    """The same files, put there again, are another version: they wait for two polls as well."""
    folder = Folder(tmp_path)
    broken = RunError("It is broken")

    def load(name, version, path):
        folder.loaded.append(version)
        if version == 2:
            raise broken

    folder.model._load = load
    folder.write(2)
    folder.poll()
    folder.poll()
    assert folder.loaded == [1, 2]
    aside = tmp_path / "aside"
    (tmp_path / "2").rename(aside)
    folder.poll()
    aside.rename(tmp_path / "2")
    folder.poll()
    assert folder.loaded == [1, 2]
    folder.poll()
    assert folder.loaded == [1, 2, 2]


def test_a_model_whose_versions_all_fail_is_an_error(tmp_path):
    """That of the newest one; a model that is served keeps what it has."""
    for version in (1, 2):
        (tmp_path / str(version)).mkdir()
        (tmp_path / str(version) / "saved_model.pb").write_text("")

    def load(name, version, path):
        raise RunError(f"Version {version} is broken")

    config = ModelConfig("m", tmp_path, parse_version_policy("all"))
    with pytest.raises(RunError, match=r"^Version 2 is broken\.$"):
        ServedModel(config, load).refresh()


def test_another_configuration_keeps_the_versions_of_a_folder(tmp_path):
    folder = Folder(tmp_path / "a", "all")
    folder.write(2)
    folder.model.refresh()
    assert folder.loaded == [1, 2]
    policy = parse_version_policy("1")
    narrow = folder.model.with_config(ModelConfig("m", tmp_path / "a", policy))
    narrow.refresh()
    assert (list(narrow.servables), folder.loaded) == ([1], [1, 2])
    # The first one, which requests still use, has not changed.
    assert list(folder.model.servables) == [2, 1]
    other = Folder(tmp_path / "b")
    moved = folder.model.with_config(ModelConfig("m", tmp_path / "b", policy))
    assert (moved.servables, moved.states) == ({}, {})
    moved.refresh()
    assert (list(moved.servables), folder.loaded, other.loaded) == ([1], [1, 2, 1], [1])


def test_older_versions_are_loaded_beside_newer_ones(tmp_path):
    folder = Folder(tmp_path / "all", "all")
    folder.write(5)
    folder.write(3)
    folder.poll()
    assert folder.poll() == [1, 3, 5]
    folder.write(2)
    folder.poll()
    assert folder.poll() == [1, 2, 3, 5]


def test_a_version_behind_one_that_fails(tmp_path):
    """The newest one that can be loaded is served, whatever comes first."""
    folder = Folder(tmp_path)

    def load(name, version, path):
        assert folder.model.states[version].state == pb.ModelVersionStatus.LOADING
        if version == 3:
            raise RunError("It is broken")

    folder.model._load = load
    folder.write(3)
    folder.poll()
    assert folder.poll() == [1]
    folder.write(2)
    folder.poll()
    assert folder.poll() == [2]


def test_the_first_version_may_be_the_one_with_number_0(tmp_path):
    """It is served while a newer one is still written."""
    for version in (0, 5):
        (tmp_path / str(version)).mkdir()
    (tmp_path / "0" / "saved_model.pb").write_text("")
    config = ModelConfig("m", tmp_path, parse_version_policy("latest"))
    first = ServedModel(config, lambda name, version, path: version)
    for size in (1, 2):
        (tmp_path / "5" / "saved_model.pb").write_text("x" * size)
        first.refresh(wait_until_stable=True)
    assert list(first.servables) == [0]


def test_changes_of_a_version_are_counted_in_a_row(tmp_path, caplog):
    folder = Folder(tmp_path)

    def load(name, version, path):
        raise RunError("It is broken")

    folder.model._load = load
    for size in range(20):
        folder.write(2, "x" * size)
        folder.poll()
    folder.poll()
    assert folder.model.states[2].details == "It is broken"
    for size in range(30, 59):
        folder.write(2, "x" * size)
        folder.poll()
    assert "files changed at each" not in caplog.text
    folder.write(2, "")
    folder.poll()
    assert caplog.text.count("version 2 is not served yet: its files changed at each of 30") == 1


def test_what_is_served_and_what_is_unloaded_is_told(tmp_path, caplog):
    caplog.set_level(logging.INFO, "cnnkit.server")
    folder = Folder(tmp_path)
    folder.write(2)
    folder.poll()
    folder.poll()
    assert [one.getMessage() for one in caplog.records] == [
        "Model 'm': version 1 is served",
        "Model 'm': version 2 is served",
        "Model 'm': version 1 is unloaded",
    ]
