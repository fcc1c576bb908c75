"""The commands that open foreign files, by what they take a file for, and what they may do."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np

from tests.bombs.confined import TEMPORARY, Confinement, Outcome
from tests.bombs.zoo import SECRET, SECRET_HDF5, Bomb

SAVED = Path(__file__).resolve().parents[1] / "data" / "saved_by_0_1_0"
OUTPUT = "out"
LINE_CHARACTERS = 1200
RUN = "good/run"
IMAGE = "good/digit.png"

# "{}" is the bomb; every other file is valid. A command whose name ends in "*" is in the small
# matrix, which runs with the other tests.
COMMANDS: dict[str, dict[str, str]] = {
    "weights": {
        "inspect*": "weights inspect {}",
        "convert": "weights convert {} --model alexnet --preprocessing caffe --output out/a.keras",
        "evaluate": "evaluate {} --dataset digits --preprocessing raw",
        "export": "export {} --preprocessing raw --output out/model",
        "features": "features {} --preprocessing raw --dataset digits --layer c --output out/f",
        "filters": "visualize filters {} --preprocessing raw --output out/a.png",
        "init": "train --dataset digits --model alexnet --image-size 32 --epochs 1 --init-from {}"
        " --output out/run",
    },
    "mean": {
        "mean": "weights inspect good/run/model.keras --mean {}",
    },
    "run": {
        "runs*": "runs {}",
        "list": "runs --folder .",
        "curves": "plot {} --output out/a.png",
        "confusion": "plot {} --kind confusion --output out/a.png",
        "inspect": "weights inspect {}",
        "evaluate": "evaluate {} --dataset shards:good/shards",
        "export": "export {} --output out/model",
        "resume": "train --resume --output {}",
        "filters": "visualize filters {} --output out/a.png",
    },
    "labels": {
        "inspect*": "weights inspect good/run/model.keras --labels {}",
        "export": "export good/run/model.keras --preprocessing raw --labels {} --output out/model",
        "evaluate": "evaluate good/run/model.keras --dataset shards:good/shards --labels {}",
    },
    "results": {
        "confusion*": "plot good/run --results {} --kind confusion --output out/a.png",
        "answers": "plot good/run --results {} --kind answers --output out/a.png",
    },
    "store": {
        "neighbors*": "neighbors good/run --query good/digit.png --index {}",
        "merge": "features merge {} good/features --output out/f",
    },
    "classifier": {
        "predict*": "transfer predict {} good/digit.png",
        "network": "transfer predict {} good/digit.png --network good/run",
    },
    "image": {
        "occlusion*": "visualize occlusion good/run {} --output out/a.png",
        "neighbors": "neighbors good/run --query {} --index good/features",
        "predict": "transfer predict good/classifier {} --network good/run",
        "correspondence": "visualize correspondence good/run {} good/digit.png --output out/a.png",
        "query": "query {} --model m --server 127.0.0.1:9 --timeout 1",
        "bench": "bench 127.0.0.1:9 --model m --image {}",
    },
    "pictures": {
        "check*": "data check folder:{}",
        "sample": "data sample folder:{} --count 4 --output out/s",
        "shard": "data shard folder:{} --output out/s",
        "evaluate": "evaluate good/run --dataset folder:{}",
        "features": "features good/run --dataset folder:{} --layer fc7 --output out/f",
        "train": "train --dataset folder:{} --model alexnet --image-size 64 --epochs 1"
        " --batch-size 4 --output out/run",
        "transfer": "transfer good/run --dataset folder:{} --layer fc7 --per-class 1 --splits 1",
    },
    "shards": {
        "check*": "data check shards:{}",
        "evaluate": "evaluate good/run --dataset shards:{}",
        "train": "train --dataset shards:{} --model alexnet --image-size 64 --epochs 1"
        " --batch-size 4 --output out/run",
    },
    "voc": {
        "transfer*": "transfer good/run --dataset voc:{} --layer fc7",
    },
    "imagenet": {
        "check*": "data check imagenet:{}",
    },
    "tfds": {
        "check*": "data check tfds:{}",
    },
    "models.config": {
        "serve*": "serve {} --port 0 --embedded",
    },
}  # fmt: skip
# These connect to the address that their words name.
CONNECTING = ("query", "bench")
# These write into the folder that they are given or make, before they come to the bomb.
WRITING = ("resume", "train")
# The process that writes an export, which is started after the model was read.
EXPORT_WORKER = "isolated_worker.py"
# Unreadable images of a folder are left out, and the others used.
LEAVING_OUT = ("pictures", "shards")
# These print a line for each file.
REPORTING = {("pictures", "check"), ("image", "query")}


def prepare(folder: Path) -> None:
    """Fill a folder with what the commands need beside a bomb."""
    good = folder / "good"
    good.mkdir()
    with zipfile.ZipFile(SAVED / "run.zip") as archive:
        archive.extractall(good)
    for name, copy in (("features",) * 2, ("shards",) * 2, ("transfer_svm", "classifier")):
        shutil.copytree(SAVED / name, good / copy)
    shutil.copy(SAVED / "digit.png", good)
    (folder / SECRET).write_bytes(b"local secret" * 100)
    with h5py.File(folder / SECRET_HDF5, "w") as file:
        file["a"] = np.ones((3, 3, 3, 1), "f4")


def build(bomb: Bomb, folder: Path) -> Path:
    """Write a bomb into a prepared folder and return its path."""
    path = folder / bomb.name
    template = {
        "run": "run", "store": "features", "classifier": "classifier", "shards": "shards",
    }.get(bomb.kind)  # fmt: skip
    if template:
        shutil.copytree(folder / "good" / template, path)
    elif bomb.kind in ("pictures", "voc", "imagenet", "tfds"):
        path.mkdir()
    bomb.write(path)
    return path


def command_words(kind: str, name: str, path: str) -> list[str]:
    """Return the words of a command of `COMMANDS` with the path of a bomb."""
    return [word.replace("{}", path) for word in COMMANDS[kind][name].split()]


def attack(confinement: Confinement, folder: Path, kind: str, name: str, path: str) -> Outcome:
    """Run a command of `COMMANDS` on a path in a prepared folder."""
    shutil.rmtree(folder / OUTPUT, ignore_errors=True)
    (folder / OUTPUT).mkdir()
    words = command_words(kind, name, path)
    return confinement.run(words, folder, network=name.rstrip("*") in CONNECTING)


def faults(
    outcome: Outcome, folder: Path, kind: str, name: str, path: str, *, harmless: bool
) -> list[str]:
    """Return what a command of `attack` did that it must not."""
    found = []
    words, name = command_words(kind, name, path), name.rstrip("*")
    lines = [line for line in outcome.err.splitlines() if not _is_note(line)]
    allowed = {0, 1, 2} if harmless or kind in LEAVING_OUT else {1, 2}
    if outcome.ended:
        found.append(outcome.ended)
    elif outcome.code not in allowed:
        found.append(f"exit code {outcome.code}")
    if "Traceback" in outcome.err or "--debug shows" in outcome.err:
        found.append(f"raw error: {(lines or [''])[-1]:.200}")
    elif not outcome.ended and outcome.code and len(lines) != 1 and (kind, name) not in REPORTING:
        found.append(f"{len(lines)} lines of errors: {lines[:2]}")
    if any(len(line) > LINE_CHARACTERS for line in lines):
        found.append(f"a line of {max(map(len, lines))} characters")
    printed = outcome.out + outcome.err
    if unprintable := {one for one in printed if not one.isprintable() and one not in "\n\t"}:
        found.append(f"printed {sorted(unprintable)[:5]}")
    if harmless and any(EXPORT_WORKER in act for act in outcome.acted):
        # A model that is as good as any other: the confinement ends its export here.
        return found
    if outcome.acted:
        found.append(f"acted: {outcome.acted[:2]}")
    named = [folder / _without_kind(word) for word in words if not word.startswith("-")]
    named += [folder / OUTPUT, folder / TEMPORARY]
    if foreign := [one for one in outcome.opened if not _is_below(one, named)]:
        found.append(f"opened {foreign[:3]}")
    if outcome.code and name not in WRITING and (left := _files(outcome.changed)):
        found.append(f"wrote {left[:3]}")
    return found


def _is_note(line: str) -> bool:
    return line.startswith(("cnnkit: note:", "note:", "usage:", " ")) or not line.strip()


def _without_kind(word: str) -> str:
    """Return the path of the specification of a dataset."""
    kind, colon, path = word.partition(":")
    return path if colon and kind.isalpha() else word


def _is_below(path: str, named: list[Path]) -> bool:
    return any(Path(path).is_relative_to(one) for one in named)


def _files(paths: list[str]) -> list[str]:
    """Return the changed files; a folder that a command made for its output is no harm.

    Nor is one that it made to see whether it can write there, and that is gone with its lock.
    """
    return [path for path in paths if not (Path(path).is_dir() or _is_in_gone_staging(Path(path)))]


def _is_in_gone_staging(path: Path) -> bool:
    return any(
        one.name.startswith(".aside-") and not os.path.lexists(one) for one in (path, *path.parents)
    )
