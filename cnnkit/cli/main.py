"""The `cnnkit` command: parse the command line, run one command, map errors to exit codes.

A command is a module in `cnnkit.cli.commands`. The first line of its docstring is the summary; it
has `add_arguments(parser)` and `run(args) -> int | None`. Commands import TensorFlow inside `run`
only, so that `--help` is fast, and after all checks of their arguments; the types of
`cnnkit.cli.values` check single ones. A command whose first argument is either a file or the name
of a subcommand lists the subcommands in `SUBCOMMANDS`, with their modules in `cnnkit.cli.commands`.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import pkgutil
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from types import ModuleType

from cnnkit._files import refuse_private_key
from cnnkit._untrusted.images import ENVIRONMENT_VARIABLE, max_image_pixels
from cnnkit.cli import commands as command_modules
from cnnkit.cli.console import (
    INTERRUPTED,
    Detail,
    discard,
    is_quiet,
    open_standard_streams,
    output_error,
    print_detail,
    print_error,
    set_detail,
)
from cnnkit.cli.option_names import in_options, set_running
from cnnkit.cli.parser import (
    Parser,
    add_common_arguments,
    common_parser,
    leaf_parsers,
    take_anywhere,
    use_environment,
)
from cnnkit.errors import AssumptionWarning, CnnkitError, RunError, UsageError, escape_controls

FAILED = 1
HELP = "help"
DETAILS = {
    "-q": Detail.QUIET,
    "--quiet": Detail.QUIET,
    "-v": Detail.VERBOSE,
    "--verbose": Detail.VERBOSE,
}
_FORMAT_WARNING = warnings.formatwarning
# Names by which packages are imported, and by which they are installed if those differ.
_DISTRIBUTIONS = {
    "google": "protobuf",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
    "tf_keras_vis": "tf-keras-vis",
}


def command_names() -> list[str]:
    """Return the names of the commands, in alphabetical order."""
    names = (module.name for module in pkgutil.iter_modules(command_modules.__path__))
    return sorted(name for name in names if not name.startswith("_"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Words of the command line after `cnnkit`; None takes those of this process.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    before = os.environ.get(ENVIRONMENT_VARIABLE)
    warnings.formatwarning = _format_note
    open_standard_streams()
    debug, pixels = take_anywhere(words)
    try:
        if pixels is not None:
            _set_max_image_pixels(pixels)
            # An error of the value names the option, not the variable.
            set_running(common_parser())
        code = _run(words, debug)
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            discard(sys.stdout)
            return FAILED
        except OSError as error:
            discard(sys.stdout)
            return _report(output_error(error), debug)
        return code
    finally:
        warnings.formatwarning = _FORMAT_WARNING
        set_detail(Detail.NORMAL)
        set_running(None)
        _set_max_image_pixels(before)


def main_train() -> int:
    """Run `cnnkit train` as the command `cnnkit-train`."""
    return main(["train", *sys.argv[1:]])


def _set_max_image_pixels(value: str | None) -> None:
    os.environ.pop(ENVIRONMENT_VARIABLE, None)
    if value is not None:
        os.environ[ENVIRONMENT_VARIABLE] = value


def _run(argv: list[str], debug: bool) -> int:
    try:
        for word in argv:
            refuse_private_key("An option", word)
        max_image_pixels()
        args = _parse(argv)
        leaf = args.leaf
        set_running(leaf)
        if args.command is None:
            leaf.print_help(sys.stderr)
            return UsageError.exit_code
        began = time.perf_counter()
        code = int(args.run(args) or 0)
        print_detail(f"{leaf.prog} took {time.perf_counter() - began:.1f} s")
        return code
    except SystemExit as stop:
        # `--help` and `--version` have printed; other codes are those of argparse and commands.
        return stop.code if isinstance(stop.code, int) else FAILED
    except KeyboardInterrupt:
        print_error("cnnkit: interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of standard output is gone (`cnnkit ... | head`).
        return FAILED
    except ModuleNotFoundError as error:
        return _report(_missing_package(error), debug)
    except Exception as error:
        return _report(error, debug)


def _format_note(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Format the warnings that users of a command can act on as one line; none with `--quiet`."""
    if is_quiet():
        return ""
    if issubclass(category, (FutureWarning, AssumptionWarning)):
        return f"cnnkit: note: {escape_controls(in_options(str(message)))}\n"
    # Warnings of other packages have several lines, and may quote names of files.
    text = "\n".join(map(escape_controls, str(message).split("\n")))
    return _FORMAT_WARNING(text, category, filename, lineno, line)


def all_command_names() -> list[str]:
    """Return the names of the commands, and those of `SUBCOMMANDS` with their command's name."""
    return [
        name
        for command in command_names()
        for name in (
            command,
            *(f"{command} {one}" for one in getattr(_module(command), "SUBCOMMANDS", {})),
        )
    ]


def build_parser(argv: Sequence[str] = (), *, commands: Sequence[str] = ()) -> Parser:
    """Build the parser of a command line.

    Args:
        argv: Its words. Only the command that they name has its arguments, because importing all
            commands is slow.
        commands: Names of commands that have their arguments too.

    Returns:
        The parser; its subcommands that have arguments are `leaf_parsers(parser)`.
    """
    parser = Parser(
        prog="cnnkit",
        description="Train, visualize, export, serve and query the classic CNNs.",
        epilog="`cnnkit help COMMAND` explains a command. The default of an option may stand in "
        "the environment: CNNKIT_TRAIN_EPOCHS=5 is that of `cnnkit train --epochs`.",
    )
    add_common_arguments(parser)
    parser.set_defaults(leaf=parser)
    known = command_names()
    given = _joined(argv)[0] if argv and argv[0] in known else None
    names = [given] if given else list(commands) or known
    subparsers = parser.add_subparsers(metavar="COMMAND", dest="command")
    for name in names:
        module = _module(name)
        summary = (module.__doc__ or name).splitlines()[0].rstrip(".")
        sub = subparsers.add_parser(name, help=summary, description=module.__doc__)
        sub.formatter_class = argparse.RawDescriptionHelpFormatter
        if name == given or name in commands:
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
            for leaf in leaf_parsers(sub):
                add_common_arguments(leaf)
                leaf.set_defaults(leaf=leaf)
    return parser


def _joined(argv: Sequence[str]) -> list[str]:
    """Return the words, those of a command and its subcommand as one.

    argparse cannot have a subcommand and a file in the same place, so that the two words become the
    name of one command.
    """
    if argv[1:] and argv[1] in getattr(_module(argv[0]), "SUBCOMMANDS", {}):
        return [f"{argv[0]} {argv[1]}", *argv[2:]]
    return list(argv)


def _parse(argv: list[str]) -> argparse.Namespace:
    """Parse the words of a command line, whose command may stand behind `--quiet`."""
    if argv[:1] == [HELP]:
        argv = [*argv[1:], "--help"]
    first = list(itertools.takewhile(DETAILS.__contains__, argv))
    argv = [*argv[len(first) :], *first]
    # Before parsing, which prints notes.
    set_detail(next((DETAILS[word] for word in argv if word in DETAILS), Detail.NORMAL))
    parser = build_parser(argv)
    if argv and argv[0] in command_names():
        argv = _joined(argv)
        # A worker of `cnnkit serve` gets all options from the process that starts it.
        if "--worker" not in argv:
            for leaf in leaf_parsers(parser):
                use_environment(leaf, os.environ)
    args: argparse.Namespace = parser.parse_args(argv)
    return args


def _module(name: str) -> ModuleType:
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
        hint=f"Install it: pip install {_DISTRIBUTIONS.get(package, package)}. A client's "
        "installation has only what `cnnkit query` and `cnnkit bench` need",
    )


def _plain_error(error: Exception) -> Exception:
    """Return the errors of the system and of memory in words; others as they are."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return RunError(f"{os.fsdecode(error.filename)} cannot be used", received=error.strerror)
    if isinstance(error, MemoryError):
        return RunError("Memory is full; a smaller --batch-size takes less")
    return error


def _report(error: Exception, debug: bool) -> int:
    """Print an error as one line on standard error, and return the exit code.

    Args:
        error: The error. Arguments of Python in it become options of the command.
        debug: Whether to print the traceback too.
    """
    if debug:
        for line in "".join(traceback.format_exception(error)).rstrip().split("\n"):
            print_error(line)
    error = _plain_error(error)
    text = str(error) if isinstance(error, CnnkitError) else f"{type(error).__name__}: {error}"
    first = text.splitlines()[0] if text else type(error).__name__
    more = "" if isinstance(error, CnnkitError) or debug else " (--debug shows the traceback)"
    print_error(f"cnnkit: error: {first}{more}")
    return error.exit_code if isinstance(error, CnnkitError) else FAILED
