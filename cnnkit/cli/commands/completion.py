"""Print a script that completes the words of cnnkit's commands in a shell.

bash: cnnkit completion bash > ~/.local/share/bash-completion/completions/cnnkit
zsh:  cnnkit completion zsh > DIR/_cnnkit, where DIR is a folder of $fpath
tcsh: cnnkit completion tcsh > FILE, and `source FILE` in ~/.tcshrc

The script holds the commands and options of this version: write it again after an update.
"""

from __future__ import annotations

import argparse

from cnnkit.cli.console import print_text
from cnnkit.cli.parser import leaf_parsers, options_of, require_packages
from cnnkit.cli.values import FILE_TYPES, FOLDER_TYPES, OutputFile

SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    require_packages("shtab", purpose="`cnnkit completion`")
    import sys

    import shtab

    from cnnkit.cli.main import build_parser, command_names

    parser = build_parser(commands=command_names())
    for leaf in leaf_parsers(parser):
        for action in options_of(leaf):
            if action.type in FILE_TYPES or isinstance(action.type, OutputFile):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif action.type in FOLDER_TYPES:
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    print_text(shtab.complete(parser, args.shell), sys.stdout)
    return 0
