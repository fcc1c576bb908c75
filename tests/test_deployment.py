"""Files for deployment: server configurations, images, manifests.

No container runs here. Each file is checked by the schema of the program that reads it.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow_serving.config import model_server_config_pb2

from cnnkit.client.inputs import DEFAULT_BATCH_ROWS
from cnnkit.server.tf_serving import GRPC_MAX_THREADS
from tests.helpers.manifests import check_few_rights, check_few_rights_of_compose

ROOT = Path(__file__).resolve().parents[1]
SERVING = ROOT / "serving"
BIN = Path(sys.executable).parent
IMAGES = (
    ROOT / "Dockerfile.gpu", SERVING / "Dockerfile.client", SERVING / "embedded" / "Dockerfile"
)  # fmt: skip
PROBE = ["/bin/bash", "/config/status.sh", "digits"]
PREDICTION = ["/bin/bash", "/config/predict.sh", "digits"]


def manifest(name):
    return yaml.safe_load((SERVING / name).read_text())


def message(name, **fields):
    """Returns a message type that TensorFlow Serving's Python package lacks, by its fields.

    A number is the type of protobuf's FieldDescriptorProto; "int64" is a message {value}.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", syntax="proto3")
    wrapped = file.message_type.add(name="Wrapped")
    wrapped.field.add(name="value", number=1, type=3, label=1)
    of = file.message_type.add(name=name)
    for number, (key, kind) in enumerate(fields.items(), start=1):
        repeated = isinstance(kind, list)
        kind = kind[0] if repeated else kind
        field = of.field.add(name=key, number=number, label=3 if repeated else 1)
        if kind == "int64":
            field.type, field.type_name = 11, "Wrapped"
        else:
            field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


TEXT, NUMBER, FLAG = 9, 3, 8


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.name)
def test_hadolint_finds_nothing_in_the_images(image):
    done = subprocess.run([BIN / "hadolint", image], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.name)
def test_images_run_as_an_unprivileged_user_and_copy_existing_files(image):
    lines = image.read_text().splitlines()
    assert "USER 10001" in lines
    assert lines.index("USER 10001") < next(
        i for i, line in enumerate(lines) if line.startswith("ENTRYPOINT")
    )
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in lines:
        if line.startswith("COPY"):
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists()
                assert f"!{source.removeprefix('./')}" in ignored


def test_compose_fits_its_schema(tmp_path):
    def check(path):
        command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", path]
        return subprocess.run(command, capture_output=True, text=True)

    done = check(SERVING / "compose.yaml")
    assert done.returncode == 0, done.stdout
    wrong = (SERVING / "compose.yaml").read_text().replace("healthcheck:", "health_check:")
    (tmp_path / "compose.yaml").write_text(wrong)
    assert check(tmp_path / "compose.yaml").returncode == 1


def test_compose_has_health_limits_and_read_only_models():
    service = manifest("compose.yaml")["services"]["serving"]
    assert service["healthcheck"]["test"] == ["CMD", *PREDICTION[:2], "${MODEL:-digits}"]
    assert not any("batching" in word for word in service["command"])
    assert all(volume["read_only"] for volume in service["volumes"])
    assert service["read_only"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    # The files that it names exist.
    for text in [*service["command"], *service["healthcheck"]["test"]]:
        if "/config/" in text:
            assert (SERVING / text.partition("/config/")[2]).is_file()


def test_the_kubernetes_manifests():
    kustomization = manifest("kustomization.yaml")
    kinds = {}
    for name in kustomization["resources"]:
        document = manifest(name)
        kinds[document["kind"]] = document
        assert document["metadata"]["name"] == "cnnkit-serving"
        assert document["apiVersion"]
    assert set(kinds) == {
        "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"
    }  # fmt: skip
    for file in kustomization["configMapGenerator"][0]["files"]:
        assert (SERVING / file).is_file()

    deployment = kinds["Deployment"]["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels
    assert kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    pod = deployment["template"]["spec"]
    [container] = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 8500, "rest": 8501}
    for name, port in ports.items():
        flag = {"grpc": "--port", "rest": "--rest_api_port"}[name]
        assert f"{flag}={port}" in container["args"]
    assert container["startupProbe"]["exec"]["command"] == PROBE
    assert container["readinessProbe"]["exec"]["command"] == PROBE
    assert "--model_name=digits" in container["args"]
    # The status stays AVAILABLE if the threads hang.
    assert container["livenessProbe"]["exec"]["command"] == PREDICTION
    assert not any("batching" in word for word in container["args"])
    assert "--enable_grpc_healthcheck_service=true" in container["args"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert mounts["models"]["readOnly"]
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    # Longer than the wait before the end, so that calls in flight come to theirs.
    wait = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > wait

    service = kinds["Service"]["spec"]
    assert service["clusterIP"] == "None"
    assert service["selector"] == labels
    assert {(port["port"], port["targetPort"]) for port in service["ports"]} == {
        (8500, "grpc"), (8501, "rest")
    }  # fmt: skip
    scaler = kinds["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == "cnnkit-serving"
    assert scaler["minReplicas"] == deployment["replicas"] == 2
    assert scaler["maxReplicas"] > 2


def test_a_server_in_a_cluster_has_few_rights_and_limits():
    pod = manifest("kubernetes/deployment.yaml")["spec"]["template"]["spec"]
    check_few_rights(pod)


def test_a_server_of_compose_has_few_rights_and_the_limits_of_the_cluster():
    service = manifest("compose.yaml")["services"]["serving"]
    check_few_rights_of_compose(service)
    [container] = manifest("kubernetes/deployment.yaml")["spec"]["template"]["spec"]["containers"]
    assert (
        service["deploy"]["resources"]["limits"]["cpus"] == container["resources"]["limits"]["cpu"]
    )


def test_the_network_policy_selects_the_servers_and_their_ports():
    policy = manifest("kubernetes/network-policy.yaml")
    pod = manifest("kubernetes/deployment.yaml")["spec"]["template"]
    assert policy["spec"]["podSelector"]["matchLabels"] == pod["metadata"]["labels"]
    [rule] = policy["spec"]["ingress"]
    [container] = pod["spec"]["containers"]
    assert {port["port"] for port in rule["ports"]} == {port["name"] for port in container["ports"]}
    [client] = rule["from"]
    assert client["podSelector"]["matchLabels"] == {"cnnkit-serving-client": "true"}
    # Without a rule for it, nothing is let through.
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert policy["spec"]["egress"] == []


def test_every_server_takes_more_calls_than_the_default():
    """Four for each core: eight callers of two cores were refused 87 % of the time."""
    flag = f"--grpc_max_threads={GRPC_MAX_THREADS}"
    assert flag in manifest("compose.yaml")["services"]["serving"]["command"]
    [container] = manifest("kubernetes/deployment.yaml")["spec"]["template"]["spec"]["containers"]
    assert flag in container["args"]
    readme = (SERVING / "README.md").read_text()
    commands = [
        command
        for block in readme.split("```")[1::2]
        for command in block.replace("\\\n", " ").splitlines()
        if "tensorflow/serving" in command or command.startswith("tensorflow_model_server")
    ]
    assert len(commands) == 2
    assert all(flag in command for command in commands)


def test_the_client_sends_no_more_images_than_batching_permits():
    text = (SERVING / "batching.config").read_text()
    [size] = re.findall(r"^max_batch_size { value: (\d+) }$", text, re.MULTILINE)
    assert int(size) == DEFAULT_BATCH_ROWS
    allowed = re.findall(r"^allowed_batch_sizes: (\d+)$", text, re.MULTILINE)
    assert str(DEFAULT_BATCH_ROWS) in allowed


def test_the_server_can_parse_the_configurations():
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((SERVING / "models.config").read_text(), config)
    [model] = config.model_config_list.config
    assert set(model.version_labels.values()) <= set(model.model_version_policy.specific.versions)

    batching = message(
        "BatchingParameters", max_batch_size="int64", batch_timeout_micros="int64",
        max_enqueued_batches="int64", num_batch_threads="int64", thread_pool_name=TEXT,
        allowed_batch_sizes=[NUMBER], pad_variable_length_inputs=FLAG,
    )()  # fmt: skip
    text_format.Parse((SERVING / "batching.config").read_text(), batching)
    sizes = list(batching.allowed_batch_sizes)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == batching.max_batch_size.value

    monitoring = text_format.Parse(
        (SERVING / "monitoring.config").read_text().replace("prometheus_config", "")
        .replace("{", "").replace("}", ""),
        message("PrometheusConfig", enable=FLAG, path=TEXT)(),
    )  # fmt: skip
    assert monitoring.enable
    [scraped] = {
        manifest("kubernetes/deployment.yaml")["spec"]["template"]["metadata"]["annotations"][
            "prometheus.io/path"
        ]
    }
    assert monitoring.path == scraped


def tls_config(*arguments):
    command = ["/bin/bash", SERVING / "ssl_config.sh", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


@pytest.fixture
def pem_files(tmp_path):
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(tmp_path / "key")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "certificate")
    authority.cert_pem.write_to_path(tmp_path / "authority")
    return [tmp_path / name for name in ("key", "certificate", "authority")]


@pytest.mark.parametrize("count", [2, 3])
def test_the_tls_configuration_is_made_from_files(pem_files, tmp_path, count):
    done = tls_config(tmp_path / "ssl.config", *pem_files[:count])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    fields = {"server_key": TEXT, "server_cert": TEXT, "custom_ca": TEXT, "client_verify": FLAG}
    config = text_format.Parse(
        (tmp_path / "ssl.config").read_text(), message("SSLConfig", **fields)()
    )
    texts = [path.read_text() for path in pem_files]
    assert [config.server_key, config.server_cert] == texts[:2]
    assert config.custom_ca == (texts[2] if count == 3 else "")
    assert config.client_verify == (count == 3)
    assert (tmp_path / "ssl.config").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda key, certificate: (key.read_text(), certificate), "received a private key"),
        (lambda key, certificate: (certificate, certificate), "must be a private key"),
        (lambda key, certificate: (key, key), "must be a certificate, received a private key"),
        (lambda key, certificate: (key, certificate.parent), "must be a file that can be read"),
        (lambda key, certificate: (key, SERVING / "README.md"), "must be a PEM file"),
        (lambda key, certificate: (key,), "must be OUTPUT, KEY, CERTIFICATE"),
    ],
)
def test_wrong_files_make_no_tls_configuration(pem_files, tmp_path, change, text):
    before = sorted(tmp_path.iterdir())
    done = tls_config(tmp_path / "ssl.config", *change(*pem_files[:2]))
    assert done.returncode == 2
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert pem_files[0].read_text().splitlines()[1] not in done.stderr
    assert sorted(tmp_path.iterdir()) == before
