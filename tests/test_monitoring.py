"""Prometheus and Grafana over `cnnkit serve`: names, labels and values that a server exports.

No Prometheus runs here. Queries are parsed by its grammar (promql-parser), which knows the types of
functions, and compared with the page of a server that has answered each API.
"""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import grpc
import numpy as np
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from cnnkit.client import Client
from cnnkit.server import EmbeddedServer, ServerMetrics, serve_metrics
from tests.helpers.serving import GRAY, SIZE

ROOT = Path(__file__).resolve().parents[1]
EMBEDDED = ROOT / "serving" / "embedded"
MONITORING = EMBEDDED / "monitoring"
# What Prometheus itself adds to each sample, and its own metric of a scrape.
SCRAPE_LABELS = {"job", "instance"}
DURATION = re.compile(r"\d+[smh]")
VARIABLES = {"$instance": "a", "$model": "b", "$__rate_interval": "5m"}


class Selector(NamedTuple):
    """A metric in a query, and the labels that the query compares, with operator and value."""

    metric: str
    compared: list


class Page(NamedTuple):
    """What a server exports: by the name of each sample, the values of its labels."""

    samples: dict

    def labels(self, metric):
        return set(self.samples[metric]) | SCRAPE_LABELS


@pytest.fixture(scope="module")
def served(colors_folder):
    """A server that has answered gRPC, REST and the Open Inference Protocol, and its page."""
    metrics = ServerMetrics()
    with (
        EmbeddedServer({"colors": colors_folder}, metrics=metrics, rest_port=0) as server,
        serve_metrics(metrics.registry, "127.0.0.1", 0) as port,
    ):
        with Client(server.address) as client:
            client.predict(np.full((2, SIZE, SIZE, 3), 40, np.float32), model="colors")
        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(b"", timeout=30)
        for path, body in (
            ("/v1/models/colors:predict", {"instances": GRAY.tolist()}),
            ("/v2/models/colors/infer", {}),
        ):
            post(f"http://{server.rest_address}{path}", body)
        metrics.load_version("colors", loaded=False)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        samples = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = samples.setdefault(sample.name, {})
                for name, value in sample.labels.items():
                    labels.setdefault(name, set()).add(value)
        yield server, Page(samples)


def post(address, body):
    try:
        urllib.request.urlopen(address, json.dumps(body).encode(), timeout=30).read()
    except urllib.error.HTTPError as error:
        assert error.code == 400


def alerts():
    [group] = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    return group["rules"]


def dashboard():
    return json.loads((MONITORING / "dashboard.json").read_text())


def queries():
    """The queries of alerts and panels, by their place."""
    found = {rule["alert"]: rule["expr"] for rule in alerts()}
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            text = target["expr"]
            for variable, value in VARIABLES.items():
                text = text.replace(variable, value)
            found[f"{panel['title']} {target['refId']}"] = text
    return found


def walk(node):
    """Yields the parts of a parsed query."""
    yield node
    for name in ("lhs", "rhs", "expr", "param", "vector_selector", "vs"):
        part = getattr(node, name, None)
        if part is not None:
            yield from walk(part)
    for part in getattr(node, "args", None) or ():
        yield from walk(part)


def selectors(query):
    for node in walk(promql_parser.parse(query)):
        if isinstance(node, promql_parser.VectorSelector):
            compared = [(one.name, one.op, one.value) for one in node.matchers.matchers]
            yield Selector(node.name, compared)


def grouped(query):
    """The labels by which a query groups, with the metrics below."""
    for node in walk(promql_parser.parse(query)):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            inner = list(walk(node.expr))
            metrics = [i.name for i in inner if isinstance(i, promql_parser.VectorSelector)]
            yield set(node.modifier.labels), metrics


def test_queries_are_walked_whole():
    query = 'sum by (a) (rate(x{b="c"}[5m])) / ignoring(d) y > 0 unless histogram_quantile(0.9, z)'
    assert [one.metric for one in selectors(query)] == ["x", "y", "z"]
    assert next(iter(selectors(query))).compared == [("b", promql_parser.MatchOp.Equal, "c")]
    assert list(grouped(query)) == [({"a"}, ["x"])]
    with pytest.raises(ValueError, match="expected type matrix"):
        promql_parser.parse("rate(x)")


@pytest.mark.parametrize(("place", "query"), queries().items())
def test_a_query_names_what_a_server_exports(served, place, query):
    _, page = served
    found = list(selectors(query))
    assert found
    for metric, compared in found:
        if metric == "up":
            assert {name for name, _, _ in compared} <= SCRAPE_LABELS
            continue
        assert metric in page.samples
        assert {name for name, _, _ in compared} <= page.labels(metric)
        for name, _, value in compared:
            if name == "code":
                assert set(value.split("|")) <= {code.name for code in grpc.StatusCode}
            elif name == "result":
                assert value in page.samples[metric]["result"]
            elif name == "method":
                # Those of every API, and not those that only tell states.
                methods = {one for one in page.samples[metric]["method"]
                           if re.fullmatch(value, one)}  # fmt: skip
                assert methods == {"Predict", "ModelInfer", "REST Predict", "REST ModelInfer"}
                assert "GetModelMetadata" in page.samples[metric]["method"]
    for labels, metrics in grouped(query):
        for metric in metrics:
            assert labels <= page.labels(metric)


def test_every_metric_of_the_server_is_shown(served):
    _, page = served
    shown = {one.metric for query in queries().values() for one in selectors(query)}
    families = {re.sub(r"_(total|bucket|sum|count|created)$", "", name) for name in page.samples}
    assert families == {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in shown} - {"up"}


def test_alerts_have_what_prometheus_takes():
    """https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules"""
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names) > 5
    for rule in alerts():
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert DURATION.fullmatch(rule.get("for", "0s"))
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}
        # A label that the query does not keep would be empty in the text.
        kept = [labels for labels, _ in grouped(rule["expr"])] or [SCRAPE_LABELS | {"model"}]
        text = " ".join(rule["annotations"].values())
        for used in re.findall(r"\$labels\.(\w+)", text):
            assert used in kept[0], rule["alert"]


def test_the_alert_of_memory_is_below_the_limit_of_the_container():
    [rule] = [one for one in alerts() if one["alert"] == "CnnkitServerMemory"]
    manifest = yaml.safe_load((EMBEDDED / "kubernetes" / "deployment.yaml").read_text())
    [container] = manifest["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == "4Gi"
    assert rule["expr"].endswith("> 0.9 * 4 * 1024 ^ 3")


def test_prometheus_scrapes_the_ports_of_the_servers():
    config = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    assert config.keys() == {"global", "rule_files", "scrape_configs"}
    assert all((MONITORING / name).is_file() for name in config["rule_files"])
    fixed, pods = config["scrape_configs"]
    assert fixed["static_configs"] == [{"targets": ["127.0.0.1:9100"]}]
    kept = {tuple(one["source_labels"]): one["regex"] for one in pods["relabel_configs"]
            if one.get("action") == "keep"}  # fmt: skip
    assert kept == {
        ("__meta_kubernetes_pod_label_app",): "cnnkit-server",
        ("__meta_kubernetes_pod_container_port_name",): "metrics",
    }
    [down] = [one for one in alerts() if one["alert"] == "CnnkitServerDown"]
    [(_, _, jobs)] = next(iter(selectors(down["expr"]))).compared
    assert all(re.fullmatch(jobs, one["job_name"]) for one in config["scrape_configs"])


def test_the_dashboard_has_what_grafana_takes():
    """https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model"""
    board = dashboard()
    assert (board["uid"], board["title"]) == ("cnnkit-server", "cnnkit serve")
    assert isinstance(board["schemaVersion"], int)
    assert board["time"].keys() == {"from", "to"}
    source, *variables = board["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == (
        "datasource", "datasource", "prometheus"
    )  # fmt: skip
    assert [f"${one['name']}" for one in variables] == ["$instance", "$model"]
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    cells = set()
    for panel in board["panels"]:
        assert panel["type"] in ("stat", "timeseries")
        assert panel["title"] and panel["description"] and panel["datasource"] == chosen
        assert panel["fieldConfig"]["defaults"]["unit"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not own & cells
        cells |= own
        assert [one["refId"] for one in panel["targets"]] == list("ABC")[: len(panel["targets"])]
        for target in panel["targets"]:
            assert target["datasource"] == chosen
            # A label that the query does not keep would be empty in the legend.
            kept = next(iter(grouped(queries()[f"{panel['title']} {target['refId']}"])), None)
            for used in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                assert used in (SCRAPE_LABELS if kept is None else kept[0])
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    # The grid has no hole.
    assert len(cells) == 24 * (1 + max(y for _, y in cells))


def test_variables_of_the_dashboard_are_labels_of_a_server(served):
    _, page = served
    for variable in dashboard()["templating"]["list"][1:]:
        found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
        metric, label = found.groups()
        assert label in page.labels(metric) and label == variable["name"]


def test_the_probes_of_the_manifests_succeed(served):
    server, _ = served
    manifest = yaml.safe_load((EMBEDDED / "kubernetes" / "deployment.yaml").read_text())
    [container] = manifest["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        path = container[probe]["httpGet"]["path"]
        with urllib.request.urlopen(f"http://{server.rest_address}{path}", timeout=30) as answer:
            assert answer.status == 200


def test_the_health_check_of_compose_succeeds_while_a_server_answers(served):
    server, _ = served
    service = yaml.safe_load((EMBEDDED / "compose.yaml").read_text())["services"]["server"]
    kind, python, *words = service["healthcheck"]["test"]
    assert (kind, python) == ("CMD", "python")
    asked = words[-1].replace("127.0.0.1:8501", server.rest_address)
    assert asked != words[-1]
    for code, wanted in ((asked, 0), (asked.replace("/ready", "/other"), 1)):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
        assert done.returncode == wanted
