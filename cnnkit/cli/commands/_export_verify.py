"""Check an exported version in the way that a server uses it, and test it with invalid inputs.

DIR is a version, such as models/digits/1, or a model's folder, whose newest version is taken. It is
loaded in a process of its own without Keras and gets the stored reference images, inputs of wrong
rank and shape, broken and too large image files, and its warm-up records. The exit code is 1 if a
check fails.
"""

from __future__ import annotations

import argparse
import dataclasses

from cnnkit.cli.console import add_json_argument, print_json, print_line, request_bar
from cnnkit.cli.written_folders import exported_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument(
        "folder", metavar="DIR", type=exported_folder, help="models/NAME/N or models/NAME"
    )
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print a line for each check; return 1 if one failed."""
    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.export import verify_export

    found = verify_export(args.folder, progress=request_bar)
    if args.json:
        checks = [dataclasses.asdict(check) for check in found.checks]
        print_json({"folder": str(found.folder), "passed": found.passed, "checks": checks})
        return 0 if found.passed else 1
    width = max(len(check.name) for check in found.checks)
    for check in found.checks:
        word = {True: "ok", False: "FAILED", None: "-"}[check.passed]
        print_line(f"{word:<6}  {check.name:<{width}}  {check.detail}")
    failed = sum(check.passed is False for check in found.checks)
    result = f"{failed} of {len(found.checks)} failed" if failed else "sound"
    print_line(f"{found.folder}: {result}")
    return 1 if failed else 0
