"""Version policies and the file models.config."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnnkit.errors import UsageError
from cnnkit.server import EmbeddedServer
from cnnkit.server.model_config import (
    LabelError,
    ModelConfig,
    VersionPolicy,
    check_served_versions,
    parse_version_policy,
    read_models_config,
)
from tests.helpers.polled_server import (
    IMAGE,
    scale_of,
    serve,
    version_states,
    wait_for,
    wait_for_polls,
)
from tests.helpers.serving import expected_probabilities


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("latest", [4]), ("latest:2", [4, 3]), ("all", [4, 3, 2, 1]), ("1,3", [3, 1])],
)
def test_version_policies(model_folder, add_version, choice, expected):
    for version in (2, 3, 4):
        add_version(version)
    with serve({"colors": model_folder}, versions=choice) as (server, _):
        assert server.repository.versions("colors") == expected


def test_texts_of_version_policies():
    for text, policy in (
        ("latest", VersionPolicy(1)),
        ("latest:1", VersionPolicy(1)),
        ("latest:12", VersionPolicy(12)),
        ("all", VersionPolicy(None)),
        ("7", VersionPolicy(None, (7,))),
        ("3,1", VersionPolicy(None, (3, 1))),
    ):
        assert parse_version_policy(text) == policy
    assert VersionPolicy(None, (3, 1, 9)).candidates([1, 2, 3]) == [3, 1]
    assert VersionPolicy(1).candidates([1, 3, 2]) == [3, 2, 1]


@pytest.mark.parametrize(
    "text", ["", "newest", "latest:0", "all:2", "latest:", "latest:x", "latest:-1", "1,,2", "1.5"]
)
def test_invalid_version_policies(text):
    with pytest.raises(UsageError, match="`versions` must be latest, all, latest:N, or numbers"):
        parse_version_policy(text)


def test_models_config(models_config, model_folder, caplog):
    assert [(c.name, c.folder, c.versions) for c in read_models_config(models_config)] == [
        ("colors", model_folder, VersionPolicy(None, (1, 2))),
        ("tints", model_folder, VersionPolicy(1)),
    ]
    with serve(models_config) as (server, client):
        assert version_states(client) == {2: "AVAILABLE", 1: "AVAILABLE"}
        assert version_states(client, "tints") == {3: "AVAILABLE"}
        for label, version in (("stable", 1), ("canary", 2)):
            answered = client.predict(IMAGE, model="colors", version_label=label)["probabilities"]
            np.testing.assert_allclose(
                answered, expected_probabilities(IMAGE, scale_of(version)), atol=1e-6
            )
        # It is read again when it changes; an invalid file changes nothing.
        models_config.write_text(
            models_config.read_text().replace('key: "canary" value: 2', 'key: "next" value: 2')
        )
        os.utime(models_config, (1, 1))
        wait_for(lambda: "next" in server.repository.configs[0].version_labels)
        models_config.write_text("model_config_list {")
        os.utime(models_config, (2, 2))
        wait_for_polls(server)
        assert version_states(client, "tints") == {3: "AVAILABLE"}
        assert caplog.text.count("The served models do not change: ") == 1
        # Nor does a file that is being replaced.
        models_config.unlink()
        wait_for_polls(server)
        assert version_states(client, "tints") == {3: "AVAILABLE"}
        assert caplog.text.count("The served models do not change: ") == 1


def test_policies_and_folders_of_a_models_config(tmp_path):
    """TensorFlow Serving's defaults: the newest version, and one of `latest` without a number."""
    texts = {
        "": VersionPolicy(1),
        "model_version_policy { latest { } }": VersionPolicy(1),
        "model_version_policy { latest { num_versions: 3 } }": VersionPolicy(3),
        "model_version_policy { all { } }": VersionPolicy(None),
        "model_version_policy { specific { versions: 4 versions: 2 } }": VersionPolicy(
            None, (4, 2)
        ),
    }
    file = tmp_path / "models.config"
    configs = [
        f"config {{ name: 'm{number}' base_path: 'a/{number}' {text} "
        f"version_labels {{ key: 'k' value: {number} }} }}"
        for number, text in enumerate(texts)
    ]
    file.write_text(f"model_config_list {{ {' '.join(configs)} }}")
    assert read_models_config(file) == [
        ModelConfig(f"m{number}", tmp_path / "a" / str(number), policy, {"k": number})
        for number, policy in enumerate(texts.values())
    ]


def test_versions_that_a_configuration_names_must_be_there():
    config = ModelConfig("m", Path("m"), VersionPolicy(None, (1, 2)), {"stable": 2})
    check_served_versions(config, [3, 2, 1])
    with pytest.raises(UsageError) as caught:
        check_served_versions(config, [2])
    assert str(caught.value) == (
        "Version 1 of model 'm' cannot be served. Expected: a SavedModel in m/1. "
        "Received: versions 2."
    )
    with pytest.raises(UsageError, match="Received: versions none"):
        check_served_versions(config, [])
    labels = ModelConfig("m", Path("m"), VersionPolicy(), {"stable": 2, "next": 3})
    with pytest.raises(LabelError) as caught:
        check_served_versions(labels, iter([2, 1]))
    assert (caught.value.name, caught.value.received) == ("m", 3)
    assert (
        "Label 'next' of model 'm' must name a version that is served. Expected: one of 2, 1"
        in (str(caught.value))
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "model_config_list { config { name: 'a' } }",
            "`config` must have a `name` and a `base_path`",
        ),
        (
            "model_config_list { config { base_path: 'a' } }",
            "`config` must have a `name` and a `base_path`",
        ),
        ("model_config_list { config { nane: 'a' } }", "is not a valid models.config"),
        ("model_config_list {", "is not a valid models.config"),
        ("", "`model_config_list` must hold one config"),
        (
            f"model_config_list {{ config {{ name: {'9' * 10_000} }} }}",
            "is not a valid models.config",
        ),
        ("x" * (2**20 + 1), "is too large"),
        ("\0", "must be text in UTF-8"),
        (
            "model_config_list { config { name: 'a' base_path: 'a' } "
            "config { name: 'a' base_path: 'b' } }",
            "`name` must be different for every model",
        ),
        (
            "model_config_list { config { name: 'a' base_path: 'a' model_platform: 'onnx' } }",
            "`model_platform` of model 'a' must be tensorflow",
        ),
        (
            "model_config_list { config { name: 'a' base_path: 'a' "
            "model_version_policy { specific { } } } }",
            "`specific` of model 'a' must name a version",
        ),
        (
            "model_config_list { config { name: 'a' base_path: 'a' } }",
            "Model folder 'a' does not exist",
        ),
    ],
)
def test_invalid_models_config(tmp_path, text, problem):
    file = tmp_path / "models.config"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        EmbeddedServer(file)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


VALID = b"""model_config_list { config { name: "a" base_path: "b" model_platform: "tensorflow"
model_version_policy { specific { versions: 1 } } version_labels { key: "stable" value: 1 } } }"""


@given(
    start=st.integers(0, len(VALID)),
    end=st.integers(0, len(VALID)),
    inserted=st.one_of(st.binary(max_size=20), st.sampled_from([b"{" * 500, b"9" * 5000, VALID])),
)
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_damaged_file_is_one_error(tmp_path, start, end, inserted):
    file = tmp_path / "models.config"
    file.write_bytes(VALID[:start] + inserted + VALID[end:])
    try:
        assert read_models_config(file)
    except UsageError as error:
        assert len(str(error)) < 1000
