"""Writing files so that whoever finds one finds it whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# How the name of a file begins that is being written.
ASIDE = ".aside-"


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yields a path beside `path`; what is written there takes its place when the block ends well.

    Flushed to disk before the rename, so that whoever finds `path` finds it whole.
    """
    aside = path.with_name(f"{ASIDE}{os.getpid()}-{path.name}")
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(text)
