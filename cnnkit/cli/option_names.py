"""Translate the arguments of Python that errors name into the options of a command.

The package names an argument in backticks, alone or with a value: "`batch_size`",
"`overwrite=True`", "`TrainingConfig.keep_epochs`". A command prints its own option in its place:
--batch-size, --overwrite, --keep-epochs. What it has no option for stays as it is.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import json
import re
from collections.abc import Mapping
from typing import Any

from cnnkit._networks import OPTIONS
from cnnkit._untrusted.images import ENVIRONMENT_VARIABLE
from cnnkit.config import TrainingConfig
from cnnkit.config_fields import option_of

_NAME = re.compile(
    r"(?:[Tt]he environment variable )?`(?P<owner>TrainingConfig\.)?(?P<name>[A-Za-z]\w*)"
    r"(?:\[(?P<part>[^`\]]*)\])?(?:=(?P<value>[^`]*))?`"
)
# Arguments of Python whose option has another name.
_RENAMED = {
    "address": "server",
    "class_names": "labels",
    "own_names": "labels",
    "version": "number",
    ENVIRONMENT_VARIABLE: "max_image_pixels",
}
# Options with NAME=VALUE, and the names that they take.
_PAIRS: Mapping[str, frozenset[str]] = {
    "model_option": frozenset(name for names in OPTIONS.values() for name in names),
    "model_options": frozenset(name for names in OPTIONS.values() for name in names),
    "init_options": frozenset({"preprocessing", "channels"}),
}


def field_flag(item: dataclasses.Field[Any]) -> str:
    """Return the option of a field of a configuration."""
    return option_of(item).flag or f"--{item.name.replace('_', '-')}"


_FIELD_FLAGS = {item.name: field_flag(item) for item in dataclasses.fields(TrainingConfig)}
_running: argparse.ArgumentParser | None = None


def set_running(parser: argparse.ArgumentParser | None) -> None:
    """Set the parser of the running command, whose options `in_options` takes."""
    global _running
    _running = parser


def in_options(text: str, parser: argparse.ArgumentParser | None = None) -> str:
    """Return an error or a note with the options of a command in place of arguments of Python.

    Args:
        text: The text.
        parser: The parser of the command; None for that of the running one.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> _ = parser.add_argument("--batch-size")
        >>> in_options("`batch_size` must be at least 1, for example `batch_size=32`.", parser)
        '--batch-size must be at least 1, for example --batch-size 32.'
    """
    parser = _running if parser is None else parser
    if parser is None or "`" not in text:
        return text
    return _NAME.sub(functools.partial(_option, _arguments(parser)), text)


def _arguments(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Return the arguments that a command shows in its help, by name; not `--version`."""
    return {
        action.dest: action
        for action in parser._actions
        if action.help != argparse.SUPPRESS and not isinstance(action, argparse._VersionAction)
    }


def _option(arguments: Mapping[str, argparse.Action], found: re.Match[str]) -> str:
    """Return the words of the command line for one argument of Python."""
    name, value = found["name"], found["part"] or found["value"]
    if found["owner"]:
        flag = _FIELD_FLAGS[name]
        return flag if value == "True" else " ".join([flag, *_words(value)])
    action = arguments.get(name) or arguments.get(_RENAMED.get(name, ""))
    if action is None:
        for pairs, names in _PAIRS.items():
            if pairs in arguments and name in names:
                flag = arguments[pairs].option_strings[0]
                return f"{flag} {name}" if value is None else f"{flag} {name}={_json(value)}"
        return found[0]
    if not action.option_strings:
        return f"`{action.metavar or name}`" if value is None else found[0]
    flags = action.option_strings
    is_switch = action.nargs == 0
    if is_switch and value == "False":
        return flags[1] if isinstance(action, argparse.BooleanOptionalAction) else found[0]
    return flags[0] if is_switch else " ".join([flags[0], *_words(value)])


def _words(value: str | None) -> list[str]:
    """Return the words of the command line for a value of Python."""
    given = None if value is None else _literal(value)
    if isinstance(given, Mapping):
        return [f"{name}={_json(repr(one))}" for name, one in given.items()]
    if isinstance(given, list | tuple):
        return list(map(str, given))
    return [] if given is None else [str(given)]


def _json(value: str) -> str:
    """Return a value of Python as the JSON of NAME=VALUE; a text without its quotes."""
    given = _literal(value)
    return given if isinstance(given, str) else json.dumps(given)


def _literal(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
