"""Every file below a folder is used or counted, in random folders."""

import contextlib
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnkit.data import load_dataset
from cnnkit.data.sources.sorted_files import IMAGE_SUFFIXES, reason_of_suffix
from cnnkit.errors import CnnkitError
from tests.helpers.images import encoded, png, write_files

IMAGE = png(7)
TORN = encoded(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8), "PNG")[:300]
FOLDERS = [
    "cat", "dog", "train", "val", "test", "Valid", "seg_train", "__MACOSX", ".git", "annotations",
    "@eaDir", "deep", "caf\udce9", "#x",
    # More often, so that there are images deep in class folders.
    *["train", "cat", "deep"] * 3,
]  # fmt: skip
FILES = ["a.png", "b.jpg", "c.txt", "none", ".DS_Store", "Thumbs.db", "d.TIF", "caf\udce9.png"]
KINDS = [
    "image",
    "image",
    "image",
    "torn",
    "text",
    "gone",
    "link",
    "folder",
    "linked",
    "up",
    "pipe",
]
ENTRY = st.tuples(
    st.lists(st.sampled_from(FOLDERS), max_size=3), st.sampled_from(FILES), st.sampled_from(KINDS)
)
TREE = st.tuples(
    st.sampled_from([(), ("train", "test"), ("Training", "valid"), ("train", "val", "test")]),
    st.lists(ENTRY, max_size=12),
)


def build(root, elsewhere, splits, entries):
    """Writes a dataset of two classes, and other files anywhere."""
    for split in splits or (".",):
        names = [f"{split}/{c}/{i}.png" for c in ("cat", "dog") for i in range(2)]
        write_files(root, names, IMAGE)
    for folders, name, kind in entries:
        place = root.joinpath(*folders)
        file = place / name
        if file.exists() or file.is_symlink():
            continue
        if any(part.exists() and not part.is_dir() for part in (place, *place.parents)):
            continue
        place.mkdir(parents=True, exist_ok=True)
        match kind:
            case "folder":
                (place / "empty").mkdir(exist_ok=True)
            case "gone":
                file.symlink_to(elsewhere / "gone")
            case "link":
                file.symlink_to(elsewhere / "image.png")
            case "linked" if not (place / "linked").is_symlink():
                (place / "linked").symlink_to(elsewhere)
            case "up" if not (place / "up").is_symlink():
                (place / "up").symlink_to(root)
            case "pipe":
                os.mkfifo(file)
            case "image" | "torn" | "text":
                file.write_bytes({"image": IMAGE, "torn": TORN, "text": b"some text"}[kind])


def list_by_hand(folder):
    """Returns all files, following links; a link to a folder around it counts as a file."""
    found = []
    for path, folders, files in os.walk(folder):
        found += [Path(path, name) for name in files]
        for link in (Path(path, name) for name in folders):
            if link.is_symlink():
                cyclic = Path(path).resolve().is_relative_to(link.resolve())
                found += [link] if cyclic else list_by_hand(link)
    return found


def readable_by_pillow(files):
    """Returns masks of the files that Pillow decodes, and of none."""
    good = np.zeros(len(files), bool)
    for i, file in enumerate(files):
        with contextlib.suppress(OSError), Image.open(file) as image:
            image.load()
            good[i] = True
    return good, np.zeros(len(files), bool)


def test_every_file_is_used_or_counted_once(tmp_path, monkeypatch):
    # Many small datasets: TensorFlow would build a pipeline for each.
    module = "cnnkit.data.sources.image_files"
    monkeypatch.setattr(f"{module}.find_readable", readable_by_pillow)
    outcomes = []

    @settings(max_examples=150)
    @given(TREE)
    def check(tree):
        root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
        for folder in (root, elsewhere):
            shutil.rmtree(folder, ignore_errors=True)
        write_files(elsewhere, ["image.png", "deep/image.png"], IMAGE)
        (elsewhere / "text.txt").write_text("some text")
        build(root, elsewhere, *tree)
        try:
            source = load_dataset(f"folder:{root}", max_unreadable=1.0)
        except CnnkitError:
            # Two training folders, classes of the test folder alone: said in one line.
            outcomes.append(False)
            return
        outcomes.append(True)
        used = [name for split in source.splits.values() for name in split.names]
        counted = [name for names in source.left_out.values() for name in names]
        # Bytes that are not UTF-8 are escaped in the names.
        contents = {
            os.fsencode(file.relative_to(root)).decode("utf-8", "backslashreplace"): (
                file.read_bytes() if file.is_file() else None
            )
            for file in list_by_hand(root)
        }
        assert Counter(used + counted) == Counter(contents.keys())
        assert all(contents[name] == IMAGE for name in used)
        # Whole images are left out for where they are, never for what they are.
        for reason in ("unreadable", "of other types", "behind broken links"):
            assert not any(contents[name] == IMAGE for name in source.left_out.get(reason, ()))
        for name in counted:
            if contents[name] == IMAGE:
                parts = Path(name).parts
                assert (
                    any(part.startswith((".", "__MACOSX", "@eaDir", "Thumbs.db")) for part in parts)
                    or "annotations" in parts
                    or len(parts) <= 2
                    or parts[0] not in splits_used(source)
                )
        classes = {Path(name).parts[len(tree[0]) > 0] for name in used}
        assert classes == set(source.class_names)

    check()
    assert sum(outcomes) > 0.5 * len(outcomes)
    assert len(outcomes) >= 100


def splits_used(source):
    return {Path(name).parts[0] for split in source.splits.values() for name in split.names}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.JPEG", "unreadable"), ("a", "unreadable"), ("a.heic", "unreadable"),
        ("a.tar.gz", "of other types"), ("a.txt", "of other types"),
    ],
)  # fmt: skip
def test_the_ending_says_what_a_file_should_be(name, reason):
    assert reason_of_suffix(name) == reason
    assert ".png" in IMAGE_SUFFIXES
