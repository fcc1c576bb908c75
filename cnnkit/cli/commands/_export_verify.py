"""Look at an exported version as a server would, and try to break it.

DIR is a version, such as models/digits/1, or a model's folder, whose newest version is taken. It is
loaded in a process of its own without Keras and asked the stored reference images, inputs of wrong
rank and shape, broken and too large image files, and its warm-up records. The exit code is 1 where
something is wrong.
"""

from __future__ import annotations

import argparse
import dataclasses
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("folder", metavar="DIR", help="models/NAME/N or models/NAME")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Verifies and prints a line for each check; returns 1 where one failed."""
    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.export import verify_export

    found = verify_export(args.folder)
    if args.json:
        checks = [dataclasses.asdict(check) for check in found.checks]
        document = {"folder": str(found.folder), "passed": found.passed, "checks": checks}
        print(json.dumps(document))
        return 0 if found.passed else 1
    width = max(len(check.name) for check in found.checks)
    for check in found.checks:
        word = {True: "ok", False: "FAILED", None: "-"}[check.passed]
        print(f"{word:<6}  {check.name:<{width}}  {check.detail}")
    failed = sum(check.passed is False for check in found.checks)
    print(f"{found.folder}: " + (f"{failed} of {len(found.checks)} failed" if failed else "sound"))
    return 1 if failed else 0
