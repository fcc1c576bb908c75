"""The folder of a site: checked before anything slow, written aside, resumed, and then renamed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cnnkit._staging import (
    STAGING_PREFIX,
    check_no_mount,
    exclusive_lock,
    publish_folder,
    write_errors,
)
from cnnkit.errors import UsageError

# Facts of a site; the file also marks a folder as one.
FACTS = "microscope.json"
KEY, LOCK = ".key", ".lock"
# Names that a layer's folder must not have: those of other entries of a site, in any case.
_TAKEN = frozenset({"classes", "images", "index.html", "site.css", "site.js", "units.js", FACTS})


def check_site(output: str | Path, *, overwrite: bool = False) -> Path:
    """Check that a site can be written, and return its folder.

    Raises:
        UsageError: If something else is there, a site that may not be replaced, or a mount point.
    """
    path = Path(output)
    path = path.resolve() if path.is_symlink() else path.absolute()
    check_no_mount(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        if not (path / FACTS).is_file():
            raise UsageError(
                "`output` must be a new folder, or one that a site is in", received=output
            )
        if not overwrite:
            raise UsageError(
                f"`output` must be a new folder, and {output} has a site",
                hint="`overwrite=True` replaces it",
            )
    return path


@contextmanager
def site_in_progress(path: Path, key: str, *, overwrite: bool) -> Iterator[Path]:
    """Yield the folder that a site is written in, and rename it to `path` when the block succeeds.

    A process that was interrupted left what it had written: the next one with the same key gets it,
    and one with another key begins anew.

    Args:
        path: Folder of the site, as `check_site` returned it.
        key: Text that is the same for the same site.
        overwrite: Whether a site at `path` is replaced.

    Raises:
        RunError: If another process writes the site, or a file cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    with write_errors(path):
        unfinished.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(unfinished / LOCK, f"The site {path}"):
            if _read_key(unfinished) != key:
                for entry in unfinished.iterdir():
                    if entry.name != LOCK:
                        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
                write_quickly(unfinished / KEY, key)
            yield unfinished
            for name in (KEY, LOCK):
                (unfinished / name).unlink(missing_ok=True)
            publish_folder(unfinished, path, replace=overwrite)
            # After an exchange, the site that was replaced.
            shutil.rmtree(unfinished, ignore_errors=True)


def _read_key(folder: Path) -> str | None:
    file = folder / KEY
    return file.read_text(encoding="utf-8") if file.is_file() else None


def write_quickly(path: Path, content: str | bytes) -> None:
    """Write one of thousands of files, whole or not at all if the process is killed.

    It is not flushed to the disk, which would take longer than everything else.
    """
    staging = path.with_name(f"{STAGING_PREFIX}{path.name}")
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    staging.write_bytes(data)
    staging.replace(path)


def layer_folders(layers: Sequence[str]) -> dict[str, str]:
    """Return the names of the layers' folders: their own, where those are safe names of files.

    Example:
        >>> layer_folders(["conv1", "../x", "Conv1", "classes"])
        {'conv1': 'conv1', '../x': 'layer-2', 'Conv1': 'layer-3', 'classes': 'layer-4'}
    """
    folders: dict[str, str] = {}
    taken = set(_TAKEN)
    for number, layer in enumerate(layers, 1):
        is_safe = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", layer) is not None
        is_safe = is_safe and not layer.endswith(".") and layer.lower() not in taken
        name = layer if is_safe and not layer.startswith("layer-") else f"layer-{number}"
        taken.add(name.lower())
        folders[layer] = name
    return folders
