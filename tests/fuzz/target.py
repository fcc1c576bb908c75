"""Fuzz one target with atheris (libFuzzer) for some seconds: a child of `tests.fuzz`.

    python -m tests.fuzz.target TARGET SECONDS FOLDER

FOLDER/corpus keeps what was found to reach new code. An error that a reader must not raise is kept
in FOLDER/findings, once for each place that raises it, and the run goes on; a crash of the process,
an input that takes longer than the limit and one that fills the memory end it.
"""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

SECONDS_OF_INPUT = 20
MEGABYTES = 3000
LONGEST = 16_384


def place_of(error: BaseException) -> str:
    """Return the kind of an error, and the innermost place in the package that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/cnnkit/" in frame.filename] or frames[-1:]
    return f"{type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno}"


def keep_findings(check: Callable[[bytes], object], folder: Path) -> Callable[[bytes], None]:
    """Return a function that keeps the bytes for which a check raises another error than ours.

    Args:
        check: Function of a target.
        folder: Folder of the findings: for each place the bytes, and a text with the traceback.
    """
    from cnnkit.errors import CnnkitError

    known = {path.name for path in folder.iterdir()}

    def checked(data: bytes) -> None:
        try:
            check(bytes(data))
        except CnnkitError:
            return
        except (Exception, RecursionError) as error:
            place = place_of(error)
            name = hashlib.sha256(place.encode()).hexdigest()[:12]
            if name not in known:
                known.add(name)
                (folder / name).write_bytes(data)
                text = "".join(traceback.format_exception(error, limit=-12))
                (folder / f"{name}.txt").write_text(f"{place}\n{text}", errors="backslashreplace")

    return checked


def main() -> None:
    """Run one target; libFuzzer ends the process."""
    import atheris

    name, seconds, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    # Imported first, because instrumented code is slower and only ours is to be explored.
    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    with atheris.instrument_imports(include=["cnnkit"]):
        from tests.fuzz import TARGETS

        seeds, check = TARGETS[name]()
    for part in ("corpus", "findings"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for data in seeds:
        (folder / "corpus" / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    options = {
        "max_total_time": seconds,
        "timeout": SECONDS_OF_INPUT,
        "rss_limit_mb": MEGABYTES,
        "max_len": max(LONGEST, *map(len, seeds)),
        "print_final_stats": 1,
        "artifact_prefix": f"{folder / 'findings'}/",
    }
    words = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup(
        [sys.argv[0], str(folder / "corpus"), *words], keep_findings(check, folder / "findings")
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
