"""OpenVINO reports nothing inside of the block: asked of its own package."""

import os
import subprocess
import sys

import pytest

from cnnkit._openvino_reports import without_reports


def test_the_environment_is_restored(monkeypatch):
    monkeypatch.setenv("CI", "mine")
    monkeypatch.delenv("NNCF_CI", raising=False)
    with without_reports():
        assert os.environ["CI"] == "true"
    assert os.environ["CI"] == "mine"
    assert "NNCF_CI" not in os.environ


@pytest.mark.parametrize(("silent", "consent"), [(True, "False"), (False, "True")])
def test_openvino_has_no_consent_inside(tmp_path, silent, consent):
    pytest.importorskip("openvino_telemetry")
    # In a process and a home of its own: the package remembers its first answer in both.
    program = f"""
import contextlib
from openvino.tools.ovc.telemetry_utils import init_ovc_telemetry
from cnnkit._openvino_reports import without_reports
with without_reports() if {silent} else contextlib.nullcontext():
    telemetry = init_ovc_telemetry()
print(telemetry.consent)
"""
    outside = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**outside, "HOME": str(tmp_path)}, text=True,
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == [consent]
