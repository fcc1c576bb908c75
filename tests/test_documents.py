"""The commands and the Python code of the documents.

Every command has a verb and options that exist. With the marker `slow`, each page is also run as it
stands there, in a folder that holds what its text says is there: a trained run, an exported model,
images. Words in capitals stand for files of the reader.
"""

import argparse
import importlib.util
import itertools
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnkit.cli.main import all_command_names, build_parser

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in [
        ROOT / "README.md",
        *(ROOT / folder / "README.md" for folder in ("client", "cluster", "serving")),
        *(ROOT / "docs").rglob("*.md"),
    ]
)
# Commands that are not run, by one of their words.
NOT_RUN = {
    "docker": "needs Docker",
    "MODELS=$PWD/models": "needs Docker",
    "kubectl": "needs a cluster",
    "sbatch": "needs a cluster",
    "tensorflow_model_server": "is another program",
    "pip": "changes the environment of the tests",
    "make": "runs these tests",
    "--worker-index": "waits for another machine",
}
# What the words in capitals stand for.
FILES = {
    "IMAGE": "digit.png",  # beside MODEL: PHOTO
    "MODEL": "runs/photos0",
    "RUN": "runs/photos0",
    "ALEXNET": "runs/photos0",
    "ZFNET": "runs/zfnet",
    "PARTS.json": "parts.json",
    "FILE": "vgg16_imagenet_conv.npz",
    "WEIGHTS": "runs/demo",
}
# Packages that a word of a command needs.
RUNTIMES = {"openvino": "openvino", "onnx": "tf2onnx", "litert": "ai_edge_litert"}
PHOTO = "photos/test/Motorbikes/0.jpg"
PORT = 8500
PARSER = build_parser(commands=all_command_names())
SECONDS = 900


def blocks(page: str, *languages: str) -> list[str]:
    """Return the fenced blocks of a page in some languages."""
    found = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    return [text for language, text in found if language in languages]


def shell_commands(page: str) -> list[str]:
    """Return the commands of a page, one line each, without comments."""
    joined = [text.replace("\\\n", " ") for text in blocks(page, "sh")]
    # A comment begins after a space: `folder:photos#val` has none.
    lines = [re.sub(r"(^|\s)#.*", "", line) for text in joined for line in text.splitlines()]
    words = [shlex.split(line, posix=False) for line in lines]
    return [" ".join(one) for one in words if one]


def cnnkit_commands() -> list[tuple[str, str]]:
    """Return a page and a command for each command of the package."""
    return [
        (page, command)
        for page in PAGES
        for command in shell_commands(page)
        if command.split()[0] in ("cnnkit", "cnnkit-train")
    ]


def find_parser(parser: argparse.ArgumentParser, words: list[str]) -> argparse.ArgumentParser:
    """Return the parser of the verbs that some words begin with."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and words[:1]:
            for count in (2, 1):
                if (name := " ".join(words[:count])) in action.choices:
                    return find_parser(action.choices[name], words[count:])
            pytest.fail(f"{words[0]} is not one of {sorted(action.choices)}")
    return parser


def test_documents_have_commands():
    pages = {page for page, _ in cnnkit_commands()}
    assert {"README.md", "serving/README.md", "docs/guide/server.md"} <= pages
    assert len(cnnkit_commands()) > 60


@pytest.mark.parametrize(("page", "command"), cnnkit_commands())
def test_the_options_of_a_command_exist(page, command):
    program, *words = shlex.split(command)
    parser = find_parser(PARSER, ["train", *words] if program == "cnnkit-train" else words)
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    assert [one for one in options if one not in parser._option_string_actions] == []


def write_photo(path, seed, level):
    noise = np.random.default_rng(seed).integers(0, 80, (80, 96, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((noise + level).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with what the documents speak of."""
    folder = tmp_path_factory.mktemp("documents")
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        for label, name in enumerate(("Faces_easy", "Motorbikes")):
            for i in range(count):
                write_photo(folder / "photos" / split / name / f"{i}.jpg", i, 100 * label)
    small = "--dataset folder:photos --image-size 64 --keep-epochs 1 2"
    for command in (
        "cnnkit train --recipe demo --output runs/demo",
        # So many that Grad-CAM finds something for each class.
        f"cnnkit train {small} --epochs 6 --model alexnet --output runs/photos0",
        f"cnnkit train {small} --epochs 2 --model zfnet --output runs/zfnet",
        "cnnkit data sample digits --output images",
        "cnnkit export runs/demo --output models/digits",
    ):
        run(command, folder)
    images = sorted((folder / "images").rglob("*.png"))
    for name in ("digit.png", "5.png", "7.png"):
        shutil.copy(images[0], folder / name)
    (folder / "parts.json").write_text(
        '[{"image": "digit.png", "parts": {"top": [2, 2, 5, 5]}},'
        ' {"image": "5.png", "parts": {"top": [1, 2, 4, 5]}}]'
    )
    return folder


@pytest.fixture
def folder(prepared, tmp_path):
    """A copy of the prepared folder for one page."""
    copy = tmp_path / "page"
    subprocess.run(["cp", "-al", prepared, copy], check=True)
    for name in ("alexnet_bvlc_conv.npz", "vgg16_imagenet_conv.npz", "caltech20", "caltech_boxes"):
        (copy / name).symlink_to(DATA / name)
    (copy / "scans").symlink_to("photos")
    return copy


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which `cnnkit` is this checkout's, and a folder the home."""
    programs = Path(sys.executable).parent
    return {
        **os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3", "HOME": str(folder),
    }  # fmt: skip


def run(command: str, folder: Path) -> None:
    """Run a command.

    Raises:
        AssertionError: If it fails; with what it printed.
    """
    start = time.monotonic()
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment(folder), text=True, timeout=SECONDS,
        capture_output=True, check=False,
    )  # fmt: skip
    # `pytest -rP` shows it: what a page says about the output is compared by reading.
    print(f"$ {command}  [{time.monotonic() - start:.0f} s]\n{done.stdout}{done.stderr}")
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def remove_outputs(commands: list[str], folder: Path) -> None:
    """Remove what the commands of a page write themselves."""
    for command in commands:
        for option, name in itertools.pairwise(command.split()):
            if option == "--output":
                shutil.rmtree(folder / name, ignore_errors=True)


def stand_ins(command: str) -> list[str]:
    """Return the words of a command, with files in the place of words in capitals."""
    words = command.split()
    files = {**FILES, "IMAGE": PHOTO} if "MODEL" in words else FILES
    return [files.get(word, word) for word in words]


class Server:
    """The server of a page: the last `cnnkit serve` of its commands."""

    def __init__(self, folder: Path):
        self._folder, self._process = folder, None

    def start(self, command: str) -> None:
        """Start it in the place of the one before, and wait until its port is open."""
        self.stop()
        self._process = subprocess.Popen(
            shlex.split(command), cwd=self._folder, env=environment(self._folder)
        )
        end = time.monotonic() + SECONDS
        while self._process.poll() is None and time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("localhost", PORT)) == 0:
                    return
            time.sleep(0.2)
        pytest.fail(f"{command} does not listen at port {PORT}")

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "sh", "python")])
def test_a_page_runs_as_it_stands(page, folder):
    server, failures = Server(folder), []
    commands, programs = shell_commands(page), blocks(page, "python")
    remove_outputs(commands, folder)
    if programs:
        (folder / "page.py").write_text("\n".join(programs))
    try:
        if not any(command.startswith("cnnkit serve") for command in commands) and any(
            "localhost:" in text or "cnnkit query" in text for text in [*commands, *programs]
        ):
            server.start("cnnkit serve models/digits --port 8500")
        for command in [
            *commands,
            *([f"{shlex.quote(sys.executable)} page.py"] if programs else []),
        ]:
            words = stand_ins(command)
            if NOT_RUN.keys() & set(words):
                continue
            if any(
                word in words and importlib.util.find_spec(module) is None
                for word, module in RUNTIMES.items()
            ):
                continue
            try:
                if words[:2] == ["cnnkit", "serve"]:
                    server.start(" ".join(words))
                else:
                    run(" ".join(words), folder)
            except AssertionError as failure:
                failures.append(str(failure))
    finally:
        server.stop()
    assert failures == []
