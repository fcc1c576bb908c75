"""Run the commands that open foreign files on a file, or on the zoo, and print what went wrong.

    python -m tests.bombs FILE ... [--kind KIND] [--command NAME]
    python -m tests.bombs --zoo PATTERN [--kind KIND] [--command NAME]

KIND is what the file is taken for (default: weights); NAME is one of its commands (default: all).
Every command runs with a limit of 1 GB above its start and 20 s of processor time. Good outcomes
are an exit code of 1 or 2, or 0 with `--harmless`, one line of text, and no other file opened.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import tempfile
from pathlib import Path

from tests.bombs import commands
from tests.bombs.all_bombs import ZOO
from tests.bombs.confined import Confinement


def main() -> int:
    """Run the commands; return 1 if one did what it must not."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bombs",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("files", nargs="*", metavar="FILE", type=Path)
    parser.add_argument("--kind", choices=commands.COMMANDS)
    parser.add_argument("--command", metavar="NAME", help="one command; * for the small matrix")
    parser.add_argument("--zoo", metavar="PATTERN", help="bombs by name, as `*.keras`")
    parser.add_argument("--harmless", action="store_true", help="an exit code of 0 is good too")
    parser.add_argument("--verbose", action="store_true", help="print good outcomes too")
    args = parser.parse_args()
    if bool(args.files) == (args.zoo is not None):
        parser.error("give files, or --zoo PATTERN")
    bad = run = 0
    with Confinement() as confinement:
        for label, kind, harmless, write in _targets(args):
            with tempfile.TemporaryDirectory(prefix="bombs-", ignore_cleanup_errors=True) as place:
                folder = Path(place).resolve()
                commands.prepare(folder)
                path = write(folder)
                for name in commands.COMMANDS[kind]:
                    if args.command not in (None, name.rstrip("*"), name[-1]):
                        continue
                    outcome = commands.attack(confinement, folder, kind, name, path)
                    found = commands.faults(outcome, folder, kind, name, path, harmless=harmless)
                    run, bad = run + 1, bad + bool(found)
                    if found or args.verbose:
                        used = f"{outcome.megabytes} MB, {outcome.seconds} s, code {outcome.code}"
                        print(f"{'BAD' if found else 'ok '} {kind} {label}, {name}: {used}")
                        print(
                            "\n".join(f"    {text}" for text in found or _answer(outcome)),
                            flush=True,
                        )
    print(f"{bad} of {run} commands did what they must not")
    return int(bad > 0)


def _targets(args: argparse.Namespace):
    """Yield a label, a kind, whether the bomb is harmless, and a function that makes it."""
    if args.zoo is None:
        for file in args.files:
            path = str(file.absolute())
            yield path, args.kind or "weights", args.harmless, lambda folder, path=path: path
        return
    for one in ZOO:
        if fnmatch.fnmatch(one.name, args.zoo) and args.kind in (None, one.kind):
            yield (
                one.name, one.kind, one.harmless or args.harmless,
                lambda folder, one=one: commands.build(one, folder).name,
            )  # fmt: skip


def _answer(outcome) -> list[str]:
    lines = (outcome.err or outcome.out).splitlines()
    return [line[:300] for line in lines[-1:]]


if __name__ == "__main__":
    sys.exit(main())
