"""Files for deployment of `cnnkit serve`: image, compose file, manifests.

No container runs here. Every command line is parsed by the program itself.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cnnkit import __version__
from cnnkit.cli.main import build_parser
from cnnkit.cli.serve.options import embedded_server_options
from tests.helpers.manifests import check_few_rights, check_few_rights_of_compose

ROOT = Path(__file__).resolve().parents[1]
EMBEDDED = ROOT / "serving" / "embedded"
BIN = Path(sys.executable).parent
PORTS = {"grpc": 8500, "rest": 8501, "metrics": 9100}
LABELS = {"app": "cnnkit-server"}


def manifest(name):
    return yaml.safe_load((EMBEDDED / name).read_text())


def deployment():
    return manifest("kubernetes/deployment.yaml")["spec"]


def container():
    [found] = deployment()["template"]["spec"]["containers"]
    return found


def image_words(instruction):
    [line] = re.findall(rf"^{instruction} (\[.*\])$", (EMBEDDED / "Dockerfile").read_text(), re.M)
    return json.loads(line)


def composed():
    return manifest("compose.yaml")["services"]["server"]


def command_lines():
    """The commands of all files, as lists of words."""
    entry = image_words("ENTRYPOINT")
    service = [re.sub(r"\$\{\w+:-(.*)\}", r"\1", word) for word in composed()["command"]]
    pod = container()
    return {
        "Dockerfile": [*entry, *image_words("CMD")],
        "compose.yaml": [*entry, *service],
        "deployment.yaml": [*pod["command"], *pod["args"]],
    }


@pytest.mark.parametrize("file", ["Dockerfile", "compose.yaml", "deployment.yaml"])
def test_the_server_takes_its_command_line(file, colors_folder):
    words = command_lines()[file]
    assert words[:2] == ["cnnkit", "serve"]
    args = build_parser(commands=["serve"]).parse_args(words[1:])
    ports = {"grpc": args.port, "rest": args.rest_port, "metrics": args.metrics_port}
    assert (args.embedded, args.host, ports) == (True, "0.0.0.0", PORTS)
    assert (args.access_log, args.log_format) == (True, "json")
    assert str(args.models) == "/models/digits"
    # Values are checked as when the server starts.
    args.models = colors_folder
    assert embedded_server_options(args)["limits"].max_memory_bytes == 2**30


def test_the_compose_file_fits_its_schema():
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, EMBEDDED / "compose.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_service_of_compose_builds_the_image_and_ends_within_its_grace():
    service = composed()
    check_few_rights_of_compose(service)
    build = service["build"]
    assert (EMBEDDED / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).samefile(EMBEDDED / "Dockerfile")
    assert service["image"] == f"${{CNNKIT_SERVER:-cnnkit-server:{__version__}}}"
    assert {int(port.rpartition(":")[2]) for port in service["ports"]} == set(PORTS.values())
    args = build_parser(commands=["serve"]).parse_args(command_lines()["compose.yaml"][1:])
    assert int(service["stop_grace_period"].removesuffix("s")) > args.grace
    exposed = re.findall(r"^EXPOSE (.*)$", (EMBEDDED / "Dockerfile").read_text(), re.M)
    assert [set(map(int, line.split())) for line in exposed] == [set(PORTS.values())]


def test_the_manifests_belong_together():
    kinds = {}
    for name in manifest("kustomization.yaml")["resources"]:
        document = manifest(name)
        kinds[document["kind"]] = document["spec"]
        assert document["metadata"]["name"] == "cnnkit-server"
    assert set(kinds) == {
        "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"
    }  # fmt: skip
    spec = kinds["Deployment"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"] == LABELS
    assert kinds["PodDisruptionBudget"]["selector"]["matchLabels"] == LABELS
    assert kinds["Service"]["selector"] == LABELS
    assert kinds["Service"]["clusterIP"] == "None"
    ports = {(one["name"], one["port"], one["targetPort"]) for one in kinds["Service"]["ports"]}
    assert ports == {(name, port, name) for name, port in PORTS.items()}
    scaler = kinds["HorizontalPodAutoscaler"]
    assert scaler["scaleTargetRef"]["name"] == "cnnkit-server"
    assert scaler["minReplicas"] == spec["replicas"] == 2


def test_a_pod_has_few_rights_and_its_volumes():
    pod = deployment()["template"]["spec"]
    check_few_rights(pod)
    assert container()["image"] == f"cnnkit-server:{__version__}"
    mounts = {mount["name"]: mount for mount in container()["volumeMounts"]}
    assert mounts["models"]["readOnly"] and mounts["models"]["mountPath"] == "/models"
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    assert {one["name"]: one["containerPort"] for one in container()["ports"]} == PORTS


def test_a_pod_ends_when_its_calls_have():
    args = build_parser(commands=["serve"]).parse_args(command_lines()["deployment.yaml"][1:])
    wait = int(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    assert deployment()["template"]["spec"]["terminationGracePeriodSeconds"] > wait + args.grace


def test_probes_ask_the_health_of_the_rest_side():
    """tests/test_monitoring.py asks a server for these paths."""
    asked = {name: container()[name]["httpGet"] for name in
             ("startupProbe", "readinessProbe", "livenessProbe")}  # fmt: skip
    assert asked == {
        "startupProbe": {"path": "/v1/health/ready", "port": "rest"},
        "readinessProbe": {"path": "/v1/health/ready", "port": "rest"},
        "livenessProbe": {"path": "/v1/health/live", "port": "rest"},
    }
    # Five minutes to load and warm up.
    probe = container()["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 300


def test_clients_reach_the_calls_and_the_monitoring_the_metrics():
    spec = manifest("kubernetes/network-policy.yaml")["spec"]
    assert spec["podSelector"]["matchLabels"] == LABELS
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["egress"] == []
    allowed = {
        next(iter(one["podSelector"]["matchLabels"].items())): {p["port"] for p in rule["ports"]}
        for rule in spec["ingress"]
        for one in rule["from"]
    }
    assert allowed == {
        ("cnnkit-server-client", "true"): {"grpc", "rest"},
        ("cnnkit-server-monitoring", "true"): {"metrics"},
    }


def test_no_file_names_an_image_without_a_version():
    folders = (ROOT / "serving", ROOT / "cluster")
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    found = [str(path) for path in files if ":latest" in path.read_text(errors="replace")]
    assert len(files) > 25
    assert found == []
