"""The parser of the command line: errors of one line, options of all commands, defaults.

Defaults of a command's options may stand in the environment: `CNNKIT_TRAIN_EPOCHS=5` is the default
of `cnnkit train --epochs`. What the command line says counts more.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from cnnkit._version import __version__
from cnnkit.cli.console import print_note, print_text
from cnnkit.cli.option_names import in_options
from cnnkit.cli.values import Number, Whole, not_one_of
from cnnkit.errors import UsageError, near_names, truncate

MAX_IMAGE_PIXELS = "--max-image-pixels"
PREFIX = "CNNKIT_"
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")

# How argparse begins an error of an argument, and its errors of other kinds.
_ARGUMENT = re.compile(r"argument (?P<name>[^:]*): (?P<text>.*)", re.DOTALL)
_AMBIGUOUS = re.compile(r"ambiguous option: (\S+) could match (.*)", re.DOTALL)
_REQUIRED = "the following arguments are required: "
_TEXTS = (
    (re.compile(r"expected one argument|expected at least one argument"), "needs a value"),
    (re.compile(r"expected (\d+) arguments?"), r"needs \1 values"),
    (re.compile(r"not allowed with argument (.*)"), r"must not be given with \1"),
    (re.compile(r"ignored explicit argument (.*)"), r"takes no value, received \1"),
)


class Parser(argparse.ArgumentParser):
    """A parser that raises its errors as `UsageError`, in the words of all errors of cnnkit."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # The built-in types say "invalid int value", and accept numbers that are not finite.
        self.register("type", int, Whole())
        self.register("type", float, Number())

    def error(self, message: str) -> NoReturn:
        """Raise an error of argparse, whose text is `message`."""
        is_value = _ARGUMENT.fullmatch(message) is not None
        hint = None if is_value else f"`{self.prog} --help` explains the arguments"
        raise UsageError(in_options(_in_our_words(message), self), hint=hint)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print the help or the version; argparse ignores that it cannot be written."""
        print_text(message.rstrip("\n"), file or sys.stderr)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the words; those that no option knows are an error with the nearest option."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            raise unknown_word(getattr(found, "leaf", self), unknown[0])
        return found

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """Convert a value as argparse does; a path that the system refuses is an error of it."""
        try:
            return super()._get_value(action, arg_string)
        except OSError as error:
            text = f"must be a path, received {truncate(arg_string, 80)}: {error.strerror}"
            raise argparse.ArgumentError(action, text) from error

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Check a value against the choices of an argument, as argparse does."""
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, not_one_of(value, action.choices))


def unknown_word(parser: argparse.ArgumentParser, word: str) -> UsageError:
    """Return the error for a word that a parser has no argument for."""
    hint = f"`{parser.prog} --help` lists the options"
    if not word.startswith("-"):
        return UsageError(f"`{parser.prog}` has no argument for {word!r}", hint=hint)
    option = word.partition("=")[0]
    known = [flag.strip("-") for action in options_of(parser) for flag in flags_of(action)]
    # Without the dashes, which all have in common.
    near = [f"--{name}" for name in near_names(option.strip("-"), known)]
    question = f"Did you mean {' or '.join(near)}? " if near else ""
    return UsageError(f"`{parser.prog}` has no option {option}", hint=question + hint)


def _in_our_words(message: str) -> str:
    """Return an error of argparse as a sentence that begins with the argument."""
    if message.startswith(_REQUIRED):
        names = [_quoted(name) for name in message.removeprefix(_REQUIRED).split(", ")]
        return f"{' and '.join(names)} must be given"
    if match := _AMBIGUOUS.fullmatch(message):
        return f"{match[1].partition('=')[0]} must be one of {match[2]}, received its beginning"
    match = _ARGUMENT.fullmatch(message)
    if not match:
        return message
    name, text = _quoted(match["name"].split("/")[0]), match["text"]
    for pattern, ours in _TEXTS:
        text = pattern.sub(ours, text, count=1)
    return f"{name} {text}" if text.startswith(("must", "needs", "takes")) else f"{name}: {text}"


def _quoted(name: str) -> str:
    return name if name.startswith("-") else f"`{name}`"


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of all commands, which `--help` of each shows."""
    group = parser.add_argument_group("all commands")
    missing: dict[str, Any] = {"default": argparse.SUPPRESS}
    how_much = group.add_mutually_exclusive_group()
    for flags, text in (
        (("-q", "--quiet"), "print results and errors only"),
        (("-v", "--verbose"), "print also what is used and how long it takes"),
    ):
        how_much.add_argument(*flags, action="store_true", help=text, **missing)
    # `main` removes these two before parsing, so that they can stand anywhere.
    group.add_argument(
        "--debug", action="store_true", help="show the traceback of a failure", **missing
    )
    group.add_argument(
        MAX_IMAGE_PIXELS,
        metavar="N",
        help="largest image file that is decoded, height times width (default: 50 million)",
        **missing,
    )
    if "--version" not in (flag for one in options_of(parser) for flag in flags_of(one)):
        group.add_argument(
            "--version",
            action="version",
            version=f"cnnkit {__version__}",
            help="print the version and exit",
        )


def common_parser() -> Parser:
    """Return a parser with the options of all commands alone."""
    parser = Parser(prog="cnnkit")
    add_common_arguments(parser)
    return parser


def leaf_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser, or those of its subcommands at any depth."""
    subparsers = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    if not subparsers:
        yield parser
    for action in subparsers:
        for sub in action.choices.values():
            yield from leaf_parsers(sub)


def options_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments of a parser that its help shows."""
    return [one for one in parser._actions if one.help != argparse.SUPPRESS]


def flags_of(action: argparse.Action) -> Sequence[str]:
    """Return the names of an option; none for a positional argument."""
    return action.option_strings


def variable_of(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """Return the environment variable that holds the default of an option.

    Example:
        >>> parser = Parser(prog="cnnkit train")
        >>> variable_of(parser, parser.add_argument("--batch-size"))
        'CNNKIT_TRAIN_BATCH_SIZE'
    """
    command = parser.prog.partition(" ")[2]
    flag = next(flag for flag in flags_of(action) if flag.startswith("--"))
    name = re.sub(r"\W+", "_", f"{command} {flag.removeprefix('--')}".strip())
    return f"{PREFIX}{name.upper()}"


def use_environment(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    """Take the defaults of a command's options from the environment.

    A note names the variables that begin as those of the command do and are none.

    Args:
        parser: The parser of a command, or of a subcommand.
        environment: The variables by name.

    Raises:
        UsageError: If the value of a variable is wrong; the variable is named.
    """
    actions = {
        variable_of(parser, action): action
        for action in options_of(parser)
        if any(flag.startswith("--") for flag in flags_of(action))
        and action.dest not in ("help", "quiet", "verbose", "debug", "version", "max_image_pixels")
    }
    for variable, action in actions.items():
        if environment.get(variable):
            action.default = _default(action, variable, environment[variable])
            action.required = False
    command = parser.prog.partition(" ")[2]
    prefix = f"{PREFIX}{re.sub(r'[^A-Z0-9]+', '_', command.upper())}_"
    for variable in environment:
        if variable.startswith(prefix) and variable not in actions:
            near = near_names(variable, list(actions))
            question = f": did you mean {' or '.join(near)}?" if near else ""
            print_note(f"the variable {variable} names no option of `{parser.prog}`{question}")


def _default(action: argparse.Action, variable: str, text: str) -> Any:
    """Return the value of a variable as the option's own value."""
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        if text.lower() not in (*YES, *NO):
            raise UsageError(f"The variable {variable} must be 1 or 0", received=text)
        given = text.lower() in YES
        is_flag = action.nargs == 0 and not isinstance(action, argparse.BooleanOptionalAction)
        return action.default if is_flag and not given else given
    many = action.nargs in ("+", "*") or isinstance(action, argparse._AppendAction)
    try:
        words = shlex.split(text) if many else [text]
        values = [_convert(action, word) for word in words]
    except (argparse.ArgumentTypeError, ValueError) as error:
        raise UsageError(f"The variable {variable} {error}") from error
    return values if many else values[0]


def _convert(action: argparse.Action, word: str) -> Any:
    convert: Any = str if action.type is None else action.type
    value = convert(word)
    if action.choices is not None and value not in action.choices:
        raise argparse.ArgumentTypeError(not_one_of(value, action.choices))
    return value


def take_anywhere(words: list[str]) -> tuple[bool, str | None]:
    """Remove `--debug` and `--max-image-pixels N` from the words of a command line.

    Returns:
        Whether `--debug` is there, and the text of the number of pixels, or None.
    """
    debug = "--debug" in words
    words[:] = [word for word in words if word != "--debug"]
    for place, word in enumerate(words):
        name, is_joined, value = word.partition("=")
        if name == MAX_IMAGE_PIXELS:
            text = value if is_joined else "".join(words[place + 1 : place + 2])
            del words[place : place + (1 if is_joined else 2)]
            return debug, text
    return debug, None


def require_packages(*packages: str, purpose: str) -> None:
    """Check that optional packages are installed, without importing them.

    Args:
        *packages: Names by which they are imported and installed.
        purpose: What needs them, as the beginning of the error: "`--figure`".

    Raises:
        UsageError: If one is missing.
    """
    for package in packages:
        if package not in sys.modules and importlib.util.find_spec(package) is None:
            raise UsageError(
                f"{purpose} needs the package {package}, which is not installed",
                hint=f"Install it: pip install {package}",
            )
