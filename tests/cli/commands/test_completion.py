"""`cnnkit completion`: the script of the shell."""

import shutil
import subprocess
import sys

import pytest

from cnnkit.cli.main import main


def completed(script, *words):
    """Returns the words that bash offers for the last one."""
    lines = [
        script,
        f"COMP_WORDS=(cnnkit {' '.join(words)}); COMP_CWORD={len(words)}",
        "$(complete -p cnnkit | sed 's/.*-F //; s/ .*//')",
        'echo "${COMPREPLY[@]}"',
    ]
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_and_choices(capsys):
    pytest.importorskip("shtab")
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert completed(script, "vis") == ["visualize"]
    assert completed(script, "train", "--ep") == ["--epochs"]
    assert completed(script, "visualize", "grad") == ["gradcam", "gradcam++"]
    assert completed(script, "visualize", "gradcam", "--la") == ["--layer"]
    assert completed(script, "evaluate", "--protocol", "den") == ["dense", "dense+multi-crop"]


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_get_a_script(shell, capsys):
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    assert "gradcam" in capsys.readouterr().out


def test_without_shtab_one_line_says_how_to_get_it(capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "shtab", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["completion", "bash"]) == 2
    assert "pip install shtab" in capsys.readouterr().err
