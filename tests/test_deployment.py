"""Files for deployment: server configurations, images, manifests, the health probe.

No container runs here. Each file is checked by the schema of the program that reads it; the probe
runs against a fake server.
"""

import base64
import contextlib
import http.server
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow_serving.config import model_server_config_pb2

from cnnkit.client.inputs import DEFAULT_BATCH_ROWS
from cnnkit.server.tf_serving import GRPC_MAX_THREADS

ROOT = Path(__file__).resolve().parents[1]
SERVING = ROOT / "serving"
BIN = Path(sys.executable).parent
IMAGES = (ROOT / "Dockerfile.gpu", SERVING / "Dockerfile.client")
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
    rights = pod["securityContext"]
    assert rights["runAsNonRoot"] is True
    assert rights["runAsUser"] == rights["runAsGroup"] == 10001
    assert rights["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert set(container["resources"]["limits"]) == {"cpu", "memory"}
    assert not any("hostPath" in volume for volume in pod["volumes"])
    assert all(volume.get("emptyDir", {"sizeLimit": 0}) for volume in pod["volumes"])


def test_a_server_of_compose_has_few_rights_and_the_limits_of_the_cluster():
    service = manifest("compose.yaml")["services"]["serving"]
    assert service["user"] == "10001:10001"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid"} & service.keys()
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

    ssl = text_format.Parse(
        (SERVING / "ssl.config").read_text(),
        message(
            "SSLConfig", server_key=TEXT, server_cert=TEXT, custom_ca=TEXT, client_verify=FLAG
        )(),
    )
    assert ssl.client_verify
    assert "PRIVATE KEY" in ssl.server_key


@contextlib.contextmanager
def served(handler):
    server = http.server.HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def rest(body):
    """Yield the port of a fake server that returns `body` for every GET, and the paths asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    with served(Handler) as port:
        yield port, asked


def status(state):
    version = {"version": "1", "state": state, "status": {"error_code": "OK", "error_message": ""}}
    # With an indent of one, as the server writes it.
    return json.dumps({"model_version_status": [version]}, indent=1) + "\n"


def probe(port):
    command = ["/bin/bash", SERVING / "status.sh", "digits", str(port)]
    return subprocess.run(command, capture_output=True, timeout=30).returncode


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (status("AVAILABLE"), 0),
        (status("AVAILABLE").rstrip(), 0),
        (status("LOADING"), 1),
        (status("END"), 1),
        ('{"error": "Could not find any versions of model digits"}', 1),
        ("", 1),
    ],
)
def test_the_probe_reads_the_status(body, code):
    """A server also returns 200 while it is loading, so the probe has to read the body."""
    with rest(body) as (port, asked):
        assert probe(port) == code
        assert asked == ["/v1/models/digits"]


def test_the_probe_fails_if_the_server_is_down():
    with rest("") as (port, _):
        pass
    assert probe(port) == 1


@contextlib.contextmanager
def predictions(answer):
    """Yield the port of a fake server that returns `answer(path, body)`, a code and a body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):  # noqa: N802
            body = self.rfile.read(int(self.headers["Content-Length"]))
            code, text = answer(self.path, json.loads(body))
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    with served(Handler) as port:
        yield port


def probe_prediction(port):
    command = ["/bin/bash", SERVING / "predict.sh", "digits", str(port)]
    return subprocess.run(command, capture_output=True, timeout=60).returncode


def test_the_liveness_probe_predicts_with_an_exported_model(tmp_path):
    """Its image passes the checks of an export, which answers with probabilities."""
    import tensorflow as tf

    from cnnkit.export import export
    from tests.helpers.exported_network import LABELS, small_alexnet

    folder = export(small_alexnet(), LABELS, tmp_path / "digits", signatures=["serving_bytes"])
    loaded = tf.saved_model.load(str(folder))
    answered = []

    def answer(path, body):
        assert path == "/v1/models/digits:predict"
        files = [base64.b64decode(one["b64"], validate=True) for one in body["instances"]]
        function = loaded.signatures[body["signature_name"]]
        answered.append(function(image_bytes=tf.constant(files))["probabilities"].numpy())
        return 200, json.dumps({"predictions": answered[-1].tolist()})

    with predictions(answer) as port:
        assert probe_prediction(port) == 0
    assert answered[0].shape == (1, len(LABELS))


@pytest.mark.parametrize("code", [400, 404, 500, 503])
def test_the_liveness_probe_fails_without_an_answer(code):
    with predictions(lambda path, body: (code, "200 is not the code")) as port:
        assert probe_prediction(port) == 1
    assert probe_prediction(port) == 1
