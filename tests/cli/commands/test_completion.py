"""`cnnkit completion`: the script of the shell."""

import re
import shutil
import subprocess
import sys

import pytest

from cnnkit.cli.main import main


def completed(script, lines):
    """Returns the words that bash offers for the last word of each line."""
    text = [script]
    for line in lines:
        words = line.split(" ")
        text += [
            f"COMP_WORDS=({' '.join(words[:-1])} '{words[-1]}'); COMP_CWORD={len(words) - 1}",
            f"$(complete -p {words[0]} | sed 's/.*-F //; s/ .*//')",
            'echo "${COMPREPLY[@]}"',
        ]
    done = subprocess.run(["bash", "-c", "\n".join(text)], capture_output=True, text=True)
    assert done.stderr == ""
    return [line.split() for line in done.stdout.split("\n")[:-1]]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_and_choices(capsys, tmp_path, monkeypatch):
    pytest.importorskip("shtab")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vgg.npz").touch()
    assert main(["completion", "bash"]) == 0
    expected = {
        "cnnkit vis": ["visualize"],
        "cnnkit he": ["help"],
        "cnnkit train --ep": ["--epochs"],
        "cnnkit visualize grad": ["gradcam", "gradcam++"],
        "cnnkit visualize gradcam --la": ["--layer"],
        "cnnkit evaluate --protocol den": ["dense", "dense+multi-crop"],
        "cnnkit train --model alexnet_t": ["alexnet_torchvision"],
        "cnnkit predict vgg.npz --model vgg1": [
            "vgg11",
            "vgg11_lrn",
            "vgg13",
            "vgg16_c",
            "vgg16",
            "vgg19",
        ],
        "cnnkit train --recipe zf": ["zfnet-paper"],
        "cnnkit recipes mod": ["modern"],
        # A subcommand stands in the place of a file.
        "cnnkit export v": ["vgg.npz", "verify"],
        "cnnkit transfer pre": ["predict"],
        "cnnkit export verify --js": ["--json"],
        "cnnkit export verify --dty": [],
        "cnnkit export vgg.npz --dty": ["--dtype"],
        # Subcommands of two words are no commands.
        "cnnkit ver": [],
        # Words that `main` takes away before it parses.
        "cnnkit-train --ep": ["--epochs"],
        "cnnkit -q plo": ["plot"],
        "cnnkit help visualize gradcam+": ["gradcam++"],
        "cnnkit help transfer pr": ["predict"],
    }
    assert completed(capsys.readouterr().out, expected) == list(expected.values())


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_get_a_script(shell, capsys):
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "gradcam" in script and re.search("%[A-Z]+%", script) is None


def test_without_shtab_one_line_says_how_to_get_it(capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "shtab", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["completion", "bash"]) == 2
    assert "pip install shtab" in capsys.readouterr().err
