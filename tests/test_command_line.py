"""The options of every command are the recorded ones: names, types, defaults and choices.

A change shows up in the diff of tests/data/command_line.txt. Record it with
`python tests/test_command_line.py --write`.
"""

import argparse
import difflib
import importlib
import re
import sys
from pathlib import Path

import pytest

from cnnkit.cli.main import command_names

RECORDED = Path(__file__).resolve().parent / "data" / "command_line.txt"


def parsers():
    """Yields every command that takes arguments, by name: those below another one too."""
    waiting = []
    for name in command_names():
        module = importlib.import_module(f"cnnkit.cli.commands.{name}")
        waiting.append((name, module))
        for below, file in getattr(module, "SUBCOMMANDS", {}).items():
            waiting.append(
                (f"{name} {below}", importlib.import_module(f"cnnkit.cli.commands.{file}"))
            )
    for name, module in waiting:
        parser = argparse.ArgumentParser(prog=f"cnnkit {name}")
        module.add_arguments(parser)
        yield from below_and(parser)


def below_and(parser):
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from below_and(inner)


def text_of(value):
    """The repr of a value, without the addresses that change from run to run."""
    return re.sub(r" at 0x[0-9a-f]+", "", getattr(value, "__name__", repr(value)))


def describe(action):
    """Returns one line: how an argument is written, and what becomes of it."""
    facts = [" ".join(action.option_strings) or action.dest, type(action).__name__.strip("_")]
    for name in ("dest", "nargs", "const", "type", "default", "required", "metavar"):
        value = getattr(action, name, None)
        if value not in (None, False, argparse.SUPPRESS) and value != facts[0]:
            facts.append(f"{name}={text_of(value)}")
    if action.choices is not None:
        facts.append(f"choices={' '.join(map(str, action.choices))}")
    return ", ".join(facts)


def command_line_text():
    lines = []
    for parser in parsers():
        lines.append(f"# {parser.prog}")
        for action in parser._actions:
            if not isinstance(action, argparse._HelpAction):
                lines.append(describe(action))
        for group in parser._mutually_exclusive_groups:
            names = " ".join(action.dest for action in group._group_actions)
            lines.append(f"one of: {names}{' (required)' if group.required else ''}")
        lines.append("")
    return "\n".join(lines)


def test_the_command_line_is_the_recorded_one():
    recorded, current = RECORDED.read_text(encoding="utf-8"), command_line_text()
    difference = "\n".join(
        difflib.unified_diff(
            recorded.splitlines(), current.splitlines(), "recorded", "current", n=0, lineterm=""
        )
    )
    if difference:
        pytest.fail(
            f"The command line changed:\n{difference}\nIf the change is intended, note it in "
            "CHANGELOG.md and run: python tests/test_command_line.py --write",
            pytrace=False,
        )


def test_the_help_tells_the_default():
    wrong = [
        f"{parser.prog} {'/'.join(action.option_strings)}: {action.default}, not {told[1]}"
        for parser in parsers()
        for action in parser._actions
        if (told := re.search(r"\(default:? (-?[\d.]+)\)", action.help or ""))
        and isinstance(action.default, int | float)
        and float(action.default) != float(told[1])
    ]
    assert wrong == []


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/test_command_line.py --write")
    RECORDED.write_text(command_line_text(), encoding="utf-8")
    print(f"wrote {RECORDED}")
