"""Invalid options of `cnnkit serve` are errors of one line."""

import ssl

import grpc
import pytest
import trustme

from cnnkit.cli.main import build_parser, main
from cnnkit.cli.serve.options import embedded_server_options, given_options
from cnnkit.server import ServerLimits


@pytest.fixture
def failure(capfd):
    """The one line of a wrong call of `cnnkit serve`."""

    def run(*argv):
        capfd.readouterr()
        assert main(["serve", *map(str, argv)]) == 2
        out, err = capfd.readouterr()
        assert out == ""
        (line,) = err.splitlines()
        return line

    return run


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--workers", "0"], "--workers must be a whole number of at least 1, received 0."),
        (["--threads", "0"], "--threads must be a whole number of at least 1, received 0."),
        (["--max-calls", "-1"], "--max-calls must be a whole number of at least 1"),
        (["--max-request-mb", "4096"], "`max_request_bytes` must be in"),
        (["--batch-window-ms", "-1"], "--batch-window-ms must be a finite number of at least 0"),
        (["--poll-seconds", "-1"], "--poll-seconds"),
        (["--poll-seconds", "nan"], "--poll-seconds"),
        (["--grace", "-1"], "--grace"),
        (["--versions", "newest"], "--versions must be latest, all, latest:N"),
        (
            ["--version-labels", "stable"],
            "--version-labels must be pairs with commas. Expected: LABEL=VERSION. "
            "Received: stable.",
        ),
        (["--version-labels", "stable=one"], "--version-labels must be pairs"),
        (["--log-format", "jsn"], "Unknown log format 'jsn'. Expected: one of text, json. Did you"),
        (["--tls-cert", "a.pem"], "TLS needs a certificate and its key"),
        (["--max-memory-mb", "256"], "`max_memory_bytes` must hold the message and the tensor"),
        (["--tls-client-names", "lab"], "--tls-client-names must be names with commas, given with"),
        (["--tls-client-ca", "a.pem"], "TLS needs a certificate and its key"),
        (["--rest-port", "65536"], "--rest-port must be a whole number of at least 0 and at most"),
        (["--metrics-port", "-1"], "--metrics-port must be a whole number of at least 0"),
        (
            ["--tls-cert", "none.pem", "--tls-key", "none.key"],
            "must be a certificate and its private key in PEM",
        ),
    ],
)
def test_invalid_options(failure, colors_folder, options, text):
    assert text in failure(colors_folder, "--port", "0", *options)
    if "--workers" not in options:
        # Printed once by the parent process, not by each worker.
        assert text in failure(colors_folder, "--port", "0", "--workers", "2", *options)


def test_a_label_for_a_version_that_is_not_served(failure, colors_folder):
    line = failure(colors_folder, "--embedded", "--port", "0", "--version-labels", "stable=7")
    assert "Label 'stable' of model 'colors' must name a version that is served" in line


def test_options_that_a_models_config_replaces(failure, colors_folder, tmp_path):
    file = tmp_path / "models.config"
    file.write_text(
        f'model_config_list {{ config {{ name: "colors" base_path: "{colors_folder}" }} }}'
    )
    for option in (["--name", "x"], ["--versions", "all"], ["--version-labels", "a=1"]):
        assert f"{option[0]} must not be given with a models.config file" in failure(
            file, "--port", "0", *option
        )


# Value on the command line, and the field of `ServerLimits` with its value.
LIMITS = [
    ("--threads", "3", "threads", 3),
    ("--batch-window-ms", "2.5", "batch_timeout_seconds", 0.0025),
    ("--max-batch", "7", "max_request_rows", 7),
    ("--max-request-pixels", "9", "max_request_pixels", 9),
    ("--max-calls", "5", "max_concurrent_requests", 5),
    ("--max-models", "6", "max_models", 6),
    ("--stuck-seconds", "50.0", "stuck_seconds", 50),
    ("--max-request-mb", "8", "max_request_bytes", 8 * 2**20),
    ("--max-memory-mb", "600", "max_memory_bytes", 600 * 2**20),
]
OTHERS = ["--versions", "all", "--version-labels", "stable=1,canary=2", "--poll-seconds", "0.5"]
OTHERS += ["--rest-port", "8501", "--metrics-port", "0", "--log-format", "json", "--grace", "2.0"]
OTHERS += ["--engine", "tensorflow", "--access-log", "--no-load-trial"]


def parsed(*words):
    argv = ["serve", *map(str, words)]
    return build_parser(argv).parse_args(argv)


@pytest.mark.parametrize(("option", "text", "field", "value"), LIMITS)
def test_each_limit(colors_folder, option, text, field, value):
    found = vars(embedded_server_options(parsed(colors_folder, option, text))["limits"])
    assert found == {**vars(ServerLimits()), field: pytest.approx(value)}


def test_options_without_any(colors_folder):
    assert embedded_server_options(parsed(colors_folder)) == {
        "limits": ServerLimits(),
        "credentials": None,
        "client_names": None,
        "allow_reload": False,
        "access_log": False,
        "models": {"colors": colors_folder},
        "versions": "latest",
        "version_labels": {"colors": {}},
    }


def test_options_of_versions_names_and_the_log(colors_folder):
    words = ["--versions", "1,2", "--version-labels", "stable=1,canary=2", "--name", "shades"]
    found = embedded_server_options(
        parsed(colors_folder, *words, "--access-log", "--allow-reload", "--workers", 1)
    )
    assert found["models"] == {"shades": colors_folder}
    assert found["versions"] == "1,2"
    assert found["version_labels"] == {"shades": {"stable": 1, "canary": 2}}
    assert found["access_log"] is found["allow_reload"] is True


def test_options_of_tls(colors_folder, tmp_path):
    """gRPC and REST have the same certificates; REST has them only where it is served."""
    authority, other = trustme.CA(), tmp_path / "clients.pem"
    authority.cert_pem.write_to_path(other)
    issued = authority.issue_cert("localhost")
    pair = tmp_path / "server.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(pair)
    words = ["--tls-cert", pair, "--tls-key", pair]
    found = embedded_server_options(parsed(colors_folder, *words))
    assert isinstance(found["credentials"], grpc.ServerCredentials) and "rest_tls" not in found
    found = embedded_server_options(parsed(colors_folder, *words, "--rest-port", 8501))
    assert found["rest_tls"].verify_mode == ssl.CERT_NONE
    words += ["--tls-client-ca", other, "--tls-client-names", "lab, other"]
    found = embedded_server_options(parsed(colors_folder, *words, "--rest-port", 8501))
    assert found["rest_tls"].verify_mode == ssl.CERT_REQUIRED
    assert found["client_names"] == ["lab", "other"]


def test_a_worker_gets_every_option_that_was_given(colors_folder):
    """The words that the parent process passes on mean the same."""
    given = [word for option, text, _, _ in LIMITS for word in (option, text)] + OTHERS
    first = parsed(colors_folder, *given)
    second = parsed(colors_folder, *given_options(first))
    assert {**vars(second), "leaf": None} == {**vars(first), "leaf": None}
    assert sorted(given_options(first)) == sorted(given)
    files = ["--tls-cert", "a", "--tls-key", "b", "--tls-client-ca", "c", "--tls-client-names", "d"]
    assert given_options(parsed(colors_folder, *files, "--allow-reload")) == [
        "--allow-reload",
        *files,
    ]
    # Those that are not the embedded server's own are not among them.
    assert given_options(parsed(colors_folder, "--port", 1, "--name", "x", "--workers", 2)) == []


def test_ports_of_rest_and_of_grpc_differ(failure, colors_folder):
    line = failure(colors_folder, "--embedded", "--port", "8500", "--rest-port", "8500")
    assert "--rest-port must be another port than --port. Received: 8500." in line
    found = embedded_server_options(parsed(colors_folder, "--port", 0, "--rest-port", 0))
    assert found["limits"] == ServerLimits()
