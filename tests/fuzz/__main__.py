"""Fuzz targets one after the other, each for a number of seconds of processor time in all.

    python -m tests.fuzz [TARGET ...] [--seconds 60] [--folder build/fuzz]

The folder keeps what each target found and how long it has run, so that a command that was stopped
goes on when it is run again. The exit code is 1 if there are findings: bytes in
FOLDER/TARGET/findings, each with its traceback. `--again` reads them once more, and deletes those
that are refused properly now.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz import TARGETS
from tests.fuzz.target import keep_findings

# What libFuzzer prints at the end, and while it runs.
EXECUTIONS = re.compile(r"stat::number_of_executed_units:\s*(\d+)|^#(\d+)\s", re.MULTILINE)


def main() -> int:
    """Run the targets and print a table of them."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument(
        "--seconds", type=int, default=60, help="of processor time for each target (default: 60)"
    )
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--again", action="store_true", help="only read the findings again")
    args = parser.parse_args()
    if unknown := set(args.targets) - TARGETS.keys():
        parser.error(f"no target {', '.join(sorted(unknown))}")
    total = 0
    for name in args.targets or TARGETS:
        folder = args.folder / name
        (folder / "findings").mkdir(parents=True, exist_ok=True)
        if args.again:
            read_again(name, folder)
        else:
            run_target(name, args.seconds, folder)
        found = findings(folder)
        total += len(found)
        done = counts(folder)
        print(f"{name:16} {done['executions']:>11,} executions {done['seconds']:>6.0f} s", end="")
        print(f"  {len(found)} findings", *(f"\n    {text}" for text in found), flush=True)
    return int(total > 0)


def counts(folder: Path) -> dict[str, float]:
    """Return how often a target was executed, and for how many seconds it ran."""
    file = folder / "counts.json"
    return json.loads(file.read_text()) if file.is_file() else {"executions": 0, "seconds": 0}


def run_target(name: str, seconds: int, folder: Path) -> None:
    """Run a target for seconds of processor time in all, also after crashes."""
    done = counts(folder)
    while done["seconds"] < seconds:
        left = max(1, round(seconds - done["seconds"]))
        command = [sys.executable, "-m", "tests.fuzz.target", name, str(left), str(folder)]
        start = _processor_seconds()
        ended = subprocess.run(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        log = ended.stderr.decode(errors="replace")
        numbers = [int(one or other) for one, other in EXECUTIONS.findall(log)]
        if not numbers:
            raise SystemExit(f"{name} did not begin:\n{log[-3000:]}")
        done["seconds"] += _processor_seconds() - start
        done["executions"] += max(numbers)
        if ended.returncode:
            (folder / "findings" / f"log-{int(time.time())}.txt").write_text(log[-20_000:])
        (folder / "counts.json").write_text(json.dumps(done))


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def findings(folder: Path) -> list[str]:
    """Return a line for each finding of a target."""
    found = []
    for file in sorted((folder / "findings").iterdir()):
        text = file.with_name(f"{file.name}.txt")
        if file.suffix != ".txt":
            first = text.read_text().partition("\n")[0] if text.exists() else "ended the process"
            found.append(f"{file}: {first}")
    return found


def read_again(name: str, folder: Path) -> None:
    """Read the findings of a target again, and keep those that still are findings."""
    _, check = TARGETS[name]()
    kept = [file for file in (folder / "findings").iterdir() if file.suffix != ".txt"]
    inputs = [file.read_bytes() for file in kept]
    for file in (folder / "findings").iterdir():
        file.unlink()
    checked = keep_findings(check, folder / "findings")
    for data in inputs:
        checked(data)


if __name__ == "__main__":
    sys.exit(main())
