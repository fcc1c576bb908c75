"""The `cnnkit` command: finds the verbs, runs the one asked for, maps errors to exit codes.

A verb is a module in `cnnkit.cli.commands`: its docstring's first line is the summary, and it has
`add_arguments(parser)` and `run(args) -> int | None`. Verbs import TensorFlow inside `run` only, so
that `--help` answers at once. A verb whose first argument is a thing or an action names the actions
in `ACTIONS`, each with the module in `cnnkit.cli.commands` that does it.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
import traceback
import warnings
from collections.abc import Sequence
from types import ModuleType

from cnnkit.cli import commands
from cnnkit.errors import CnnkitError, UsageError

INTERRUPTED = 130
_FORMAT_WARNING = warnings.formatwarning


def command_names() -> list[str]:
    """Returns the names of the verbs, in alphabetical order."""
    names = (module.name for module in pkgutil.iter_modules(commands.__path__))
    return sorted(name for name in names if not name.startswith("_"))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    warnings.formatwarning = _format_note
    try:
        return _run(argv, debug)
    finally:
        warnings.formatwarning = _FORMAT_WARNING


def _run(argv: list[str], debug: bool) -> int:
    args = _parse([word for word in argv if word != "--debug"])
    try:
        return args.run(args) or 0
    except CnnkitError as error:
        return _fail(error, debug, error.exit_code)
    except KeyboardInterrupt:
        print("cnnkit: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`cnnkit ... | head`): nothing is left to tell it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        return _fail(_missing(error), debug, 1)
    except Exception as error:
        return _fail(error, debug, 1)


def _format_note(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Formats the warnings that users of a command can act on as one line."""
    if issubclass(category, FutureWarning):
        return f"cnnkit: note: {message}\n"
    return _FORMAT_WARNING(message, category, filename, lineno, line)


def main_train() -> int:
    """The `cnnkit-train` command: `cnnkit train` under its own name."""
    return main(["train", *sys.argv[1:]])


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="cnnkit",
        description="Train, look inside, export, serve and query the classic CNNs.",
    )
    # Taken out of the command line before it is parsed, so that it may stand anywhere.
    parser.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    known = command_names()
    asked = argv[0] if argv and argv[0] in known else None
    if asked and argv[1:] and argv[1] in getattr(_verb(asked), "ACTIONS", {}):
        # A verb of two words to argparse, which cannot tell a thing from an action itself.
        asked = f"{asked} {argv[1]}"
        argv = [asked, *argv[2:]]
    subparsers = parser.add_subparsers(metavar="VERB", dest="verb")
    # The help lists every verb; the one that is asked for is all that is imported otherwise.
    for name in [asked] if asked else known:
        module = _verb(name)
        summary = (module.__doc__ or name).splitlines()[0].rstrip(".")
        sub = subparsers.add_parser(name, help=summary, description=module.__doc__)
        sub.formatter_class = argparse.RawDescriptionHelpFormatter
        if name == asked:
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    if args.version:
        from cnnkit import __version__

        print(f"cnnkit {__version__}")
        raise SystemExit(0)
    if args.verb is None:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    return args


def _verb(name: str) -> ModuleType:
    verb, _, action = name.partition(" ")
    module = importlib.import_module(f"cnnkit.cli.commands.{verb}")
    if not action:
        return module
    return importlib.import_module(f"cnnkit.cli.commands.{module.ACTIONS[action]}")


def _missing(error: ModuleNotFoundError) -> Exception:
    """Returns what to tell where a package is missing, as in an installation for clients."""
    package = (error.name or "cnnkit").partition(".")[0]
    if package == "cnnkit":
        return error
    return UsageError(
        f"This command needs the package {package}, which is not installed",
        hint="`pip install cnnkit` brings all that it needs; a client's installation has only what "
        "`cnnkit query` and `cnnkit bench` need",
    )


def _fail(error: Exception, debug: bool, code: int) -> int:
    if debug:
        traceback.print_exception(error)
    text = str(error) if isinstance(error, CnnkitError) else f"{type(error).__name__}: {error}"
    first = text.splitlines()[0] if text else type(error).__name__
    more = "" if isinstance(error, CnnkitError) or debug else " (--debug shows the traceback)"
    print(f"cnnkit: error: {first}{more}", file=sys.stderr)
    return code
