"""The `cnnkit` command: parse the command line, run one command, map errors to exit codes.

A command is a module in `cnnkit.cli.commands`. The first line of its docstring is the summary; it
has `add_arguments(parser)` and `run(args) -> int | None`. Commands import TensorFlow inside `run`
only, so that `--help` is fast. A command whose first argument is either a file or the name of a
subcommand lists the subcommands in `SUBCOMMANDS`, with their modules in `cnnkit.cli.commands`.
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
from typing import NoReturn

from cnnkit._files import refuse_private_key
from cnnkit._untrusted.images import ENVIRONMENT_VARIABLE, max_image_pixels
from cnnkit.cli import commands
from cnnkit.cli.console import print_error, print_line
from cnnkit.errors import AssumptionWarning, CnnkitError, UsageError, escape_controls

FAILED = 1
INTERRUPTED = 130
MAX_IMAGE_PIXELS = "--max-image-pixels"
_FORMAT_WARNING = warnings.formatwarning


def command_names() -> list[str]:
    """Return the names of the commands, in alphabetical order."""
    names = (module.name for module in pkgutil.iter_modules(commands.__path__))
    return sorted(name for name in names if not name.startswith("_"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Words of the command line after `cnnkit`; None takes those of this process.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    before = os.environ.get(ENVIRONMENT_VARIABLE)
    warnings.formatwarning = _format_note
    try:
        return _run([word for word in argv if word != "--debug"], debug)
    finally:
        warnings.formatwarning = _FORMAT_WARNING
        _set_max_image_pixels(before)


def main_train() -> int:
    """Run `cnnkit train` as the command `cnnkit-train`."""
    return main(["train", *sys.argv[1:]])


def _take_max_image_pixels(argv: list[str]) -> None:
    """Remove `--max-image-pixels N` from the words, and set the limit of this process.

    Raises:
        UsageError: If the value is missing or not a number of pixels.
    """
    for place, word in enumerate(argv):
        name, is_joined, value = word.partition("=")
        if name == MAX_IMAGE_PIXELS:
            _set_max_image_pixels(value if is_joined else "".join(argv[place + 1 : place + 2]))
            del argv[place : place + (1 if is_joined else 2)]
            break
    max_image_pixels()


def _set_max_image_pixels(value: str | None) -> None:
    os.environ.pop(ENVIRONMENT_VARIABLE, None)
    if value is not None:
        os.environ[ENVIRONMENT_VARIABLE] = value


def _run(argv: list[str], debug: bool) -> int:
    try:
        for word in argv:
            refuse_private_key("An option", word)
        _take_max_image_pixels(argv)
    except UsageError as error:
        return _report(error, debug, error.exit_code)
    args = _parse(argv)
    try:
        return args.run(args) or 0
    except CnnkitError as error:
        return _report(error, debug, error.exit_code)
    except KeyboardInterrupt:
        print_error("cnnkit: interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of standard output is gone (`cnnkit ... | head`). Python's own flush at exit
        # would fail again, so that it gets another file.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except ModuleNotFoundError as error:
        return _report(_missing_package(error), debug, FAILED)
    except Exception as error:
        return _report(error, debug, FAILED)


def _format_note(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Format the warnings that users of a command can act on as one line."""
    if issubclass(category, (FutureWarning, AssumptionWarning)):
        return f"cnnkit: note: {escape_controls(str(message))}\n"
    # Warnings of other packages have several lines, and may quote names of files.
    text = "\n".join(map(escape_controls, str(message).split("\n")))
    return _FORMAT_WARNING(text, category, filename, lineno, line)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors quote arguments, such as names of files, without their controls."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, and exit."""
        super().error(escape_controls(message))


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="cnnkit",
        description="Train, visualize, export, serve and query the classic CNNs.",
    )
    # `main` removes these two before parsing, so that they can stand anywhere.
    parser.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    parser.add_argument(
        MAX_IMAGE_PIXELS,
        metavar="N",
        help="largest image file that is decoded, height times width (default: 50 million)",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    known = command_names()
    given = argv[0] if argv and argv[0] in known else None
    if given and argv[1:] and argv[1] in getattr(_command_module(given), "SUBCOMMANDS", {}):
        # argparse cannot have a subcommand and a file in the same place, so that the two words
        # become the name of one command.
        given = f"{given} {argv[1]}"
        argv = [given, *argv[2:]]
    subparsers = parser.add_subparsers(metavar="COMMAND", dest="command")
    # Importing all commands is slow, and only the help without a command needs it.
    for name in [given] if given else known:
        module = _command_module(name)
        summary = (module.__doc__ or name).splitlines()[0].rstrip(".")
        sub = subparsers.add_parser(name, help=summary, description=module.__doc__)
        sub.formatter_class = argparse.RawDescriptionHelpFormatter
        if name == given:
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    if args.version:
        from cnnkit import __version__

        print_line(f"cnnkit {__version__}")
        raise SystemExit(0)
    if args.command is None:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    return args


def _command_module(name: str) -> ModuleType:
    """Import the module of a command, or of a command and its subcommand."""
    command, _, subcommand = name.partition(" ")
    module = importlib.import_module(f"cnnkit.cli.commands.{command}")
    if not subcommand:
        return module
    return importlib.import_module(f"cnnkit.cli.commands.{module.SUBCOMMANDS[subcommand]}")


def _missing_package(error: ModuleNotFoundError) -> Exception:
    """Return the error for a package that a client-only installation does not have."""
    package = (error.name or "cnnkit").partition(".")[0]
    if package == "cnnkit":
        return error
    return UsageError(
        f"This command needs the package {package}, which is not installed",
        hint="`pip install cnnkit` installs everything; a client's installation has only what "
        "`cnnkit query` and `cnnkit bench` need",
    )


def _report(error: Exception, debug: bool, code: int) -> int:
    """Print an error as one line on standard error, and return the exit code."""
    if debug:
        for line in "".join(traceback.format_exception(error)).rstrip().split("\n"):
            print_error(line)
    text = str(error) if isinstance(error, CnnkitError) else f"{type(error).__name__}: {error}"
    first = text.splitlines()[0] if text else type(error).__name__
    more = "" if isinstance(error, CnnkitError) or debug else " (--debug shows the traceback)"
    print_error(f"cnnkit: error: {first}{more}")
    return code
