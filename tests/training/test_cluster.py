"""Processes of a distributed training: TF_CONFIG as launchers write it, and as it must not be."""

import json

import pytest

from cnnkit.cli.main import main
from cnnkit.errors import UsageError
from cnnkit.training.cluster import cluster_resolver

WORKERS = {"worker": ["a:1", "b:2"]}
FIRST = {"type": "worker", "index": 0}


def set_config(monkeypatch, config):
    text = config if isinstance(config, str) else json.dumps(config)
    monkeypatch.setenv("TF_CONFIG", text)


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"cluster": WORKERS, "task": {"type": "worker", "index": 1}}, ("worker", 1)),
        ({"cluster": WORKERS, "task": {"type": "worker", "index": "1"}}, ("worker", 1)),
        (
            {"cluster": {"chief": ["c:3"], **WORKERS}, "task": {"type": "chief", "index": 0}},
            ("chief", 0),
        ),
        ({"cluster": {"worker": ["[::1]:7"]}, "task": FIRST, "rpc_layer": "grpc"}, ("worker", 0)),
    ],
)
def test_the_place_of_a_process_is_read(monkeypatch, config, place):
    set_config(monkeypatch, config)
    resolver = cluster_resolver()
    assert (resolver.task_type, resolver.task_id) == place
    assert resolver.cluster_spec().as_dict() == config["cluster"]
    assert resolver.rpc_layer == "grpc"


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ("{", "TF_CONFIG must be JSON"),
        ("[1]", "TF_CONFIG must hold a cluster.*Received: no cluster"),
        ("{}", "TF_CONFIG must hold a cluster"),
        ({"cluster": [], "task": FIRST}, "TF_CONFIG must hold a cluster"),
        ({"cluster": {}, "task": FIRST}, "cluster of TF_CONFIG must hold a chief, workers or both"),
        ({"cluster": WORKERS}, "TF_CONFIG must hold a task.*Received: no task"),
        ({"cluster": WORKERS, "task": {}}, "The task of TF_CONFIG must have the type"),
        ({"cluster": WORKERS, "task": {"type": "worker"}}, "The task of TF_CONFIG must have the i"),
        ({"cluster": WORKERS, "task": {"type": "worker", "index": 2}}, "Expected: 0 to 1"),
        ({"cluster": WORKERS, "task": {"type": "worker", "index": -1}}, "Expected: 0 to 1"),
        ({"cluster": WORKERS, "task": {"type": "worker", "index": True}}, "Expected: 0 to 1"),
        ({"cluster": WORKERS, "task": {"type": "evaluator", "index": 0}}, "TF_CONFIG.*'evaluator'"),
        ({"cluster": WORKERS, "task": {"type": "chief", "index": 0}}, "TF_CONFIG.*'chief'"),
        ({"cluster": WORKERS, "task": {"type": ["worker"], "index": 0}}, "The task of TF_CONFIG"),
        ({"cluster": {**WORKERS, "ps": ["c:3"]}, "task": FIRST}, "TF_CONFIG.*Received: ps"),
        (
            {"cluster": {**WORKERS, "evaluator": ["c:3"]}, "task": FIRST},
            "TF_CONFIG.*Received: evaluator",
        ),
        ({"cluster": {"worker": ["a", "b:2"]}, "task": FIRST}, "TF_CONFIG.*Received: 'a'"),
        ({"cluster": {"worker": "a:1"}, "task": FIRST}, "TF_CONFIG.*list of host:port"),
        ({"cluster": {"worker": ["a:1", "a:1"]}, "task": FIRST}, "TF_CONFIG.*a:1 twice"),
        ({"cluster": {"worker": ["a:1"], "chief": ["a:1"]}, "task": FIRST}, "TF_CONFIG.*a:1 twice"),
        ({"cluster": {"worker": ["a:99999"]}, "task": FIRST}, "TF_CONFIG.*'a:99999'"),
        (
            {"cluster": {"chief": ["a:1", "b:2"]}, "task": {"type": "chief", "index": 0}},
            "one chief",
        ),
        ("", "needs `workers` or TF_CONFIG"),
    ],
)
def test_a_wrong_configuration_is_refused_by_its_name(monkeypatch, config, text):
    set_config(monkeypatch, config)
    with pytest.raises(UsageError, match=text) as error:
        cluster_resolver()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("workers", "index", "text"),
    [
        (["a"], 0, "`workers` must be the addresses.*host:port. Received: 'a'"),
        ("a:1,b:2", 0, "`workers` must be the addresses"),
        (["a:1", "b:2"], None, "`worker_index` must be the position"),
        (["a:1", "b:2"], 2, "an index of 0 to 1. Received: 2"),
        (["a:1", "b:2"], -1, "an index of 0 to 1. Received: -1"),
        (["a:0", "b:2"], 0, "`workers` must be the addresses.*host:port. Received: 'a:0'"),
        (["a:65536", "b:2"], 0, "`workers` must be the addresses.*Received: 'a:65536'"),
        (["a:1", "a:1"], 0, "`workers` must name every process once. Received: a:1 twice"),
        ([], 1, "`worker_index` needs `workers`"),
    ],
)
def test_wrong_addresses_are_refused(workers, index, text):
    with pytest.raises(UsageError, match=text):
        cluster_resolver(workers, index)


def test_the_addresses_of_all_processes_are_a_cluster():
    for index in (0, 1):
        resolver = cluster_resolver(["a:1", "b:65535"], index)
        assert resolver.cluster_spec().as_dict() == {"worker": ["a:1", "b:65535"]}
        assert (resolver.task_type, resolver.task_id) == ("worker", index)


def test_the_command_names_tf_config(monkeypatch, tmp_path, capsys):
    set_config(monkeypatch, '{"cluster": ')
    words = ["train", "--strategy", "multiworker", "--output", str(tmp_path / "run")]
    assert main(words) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("cnnkit: error: TF_CONFIG must be JSON")
    assert "\n" not in error
    assert not (tmp_path / "run").exists()
