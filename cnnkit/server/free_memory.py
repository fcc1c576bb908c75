"""The memory that a process can still take before an allocation fails or the system ends it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cnnkit.errors import RunError

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


class MemoryShortageError(RunError):
    """A version needs more memory than is free; it can be loaded when more is free."""


@dataclass(frozen=True)
class _Files:
    """Names of the files of a control group, in one version of the interface."""

    folder: str
    limit: str
    usage: str
    cache: str


_VERSION_1 = _Files(
    "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
)
_VERSION_2 = _Files("", "memory.max", "memory.current", "inactive_file")


def find_free_memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int | None:
    """Returns the bytes that this process can still allocate; None if the system does not say.

    That is the least of the free memory of the machine, of the container (every control group above
    the process), and of the limits of the process (`ulimit -v`, `ulimit -d`). Cached files count as
    free.

    Args:
        proc: The folder `/proc`.
        cgroups: The folder of the control groups.

    Example:
        >>> find_free_memory(Path("/none"), Path("/none")) is None
        True
    """
    free = [*_free_of_machine(proc), *_free_of_groups(proc, cgroups), *_free_of_limits(proc)]
    return max(0, min(free)) if free else None


def read_status(field: str, proc: Path = _PROC) -> int | None:
    """Returns a size of this process in bytes, such as `VmRSS`; None if the system does not say."""
    return next(_kilobytes(proc / "self" / "status", field), None)


def _free_of_machine(proc: Path) -> Iterator[int]:
    yield from _kilobytes(proc / "meminfo", "MemAvailable")


def _free_of_groups(proc: Path, cgroups: Path) -> Iterator[int]:
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            files = _VERSION_2
        elif "memory" in controllers.split(","):
            files = _VERSION_1
        else:
            continue
        root = cgroups / files.folder
        # A container may see its own group as the root, under the path of the machine.
        group = root / path.strip("/")
        for folder in (group, *group.parents):
            yield from _free_of_group(folder, files)
            if folder == root:
                break


def _free_of_group(folder: Path, files: _Files) -> Iterator[int]:
    limit, usage = _text(folder / files.limit).strip(), _text(folder / files.usage).strip()
    if limit.isdecimal() and usage.isdecimal():
        cache = re.search(rf"^{files.cache} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
        yield int(limit) - int(usage) + (int(cache[1]) if cache else 0)


def _free_of_limits(proc: Path) -> Iterator[int]:
    # Windows has no such module.
    try:
        import resource
    except ImportError:
        return
    for limit, field in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            yield from (soft - used for used in _kilobytes(proc / "self" / "status", field))


def _kilobytes(file: Path, field: str) -> Iterator[int]:
    found = re.search(rf"^{field}:\s*(\d+) kB$", _text(file), re.MULTILINE)
    if found:
        yield 1024 * int(found[1])


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
