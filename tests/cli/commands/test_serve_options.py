"""Invalid options of `cnnkit serve` are errors of one line."""

import pytest

from cnnkit.cli.main import main


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
