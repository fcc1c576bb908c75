"""Print a script that completes the words of cnnkit's commands in a shell.

bash: cnnkit completion bash > ~/.local/share/bash-completion/completions/cnnkit, and for
      `cnnkit-train`: ln -s cnnkit ~/.local/share/bash-completion/completions/cnnkit-train
zsh:  cnnkit completion zsh > DIR/_cnnkit, where DIR is a folder of $fpath
tcsh: cnnkit completion tcsh > FILE, and `source FILE` in ~/.tcshrc

The script holds the commands and options of this version: write it again after an update. That of
tcsh does not complete `export verify`, `transfer predict`, `help COMMAND` and `cnnkit-train`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from cnnkit._networks import PAPERS
from cnnkit.cli.console import print_text
from cnnkit.cli.parser import leaf_parsers, options_of, require_packages
from cnnkit.cli.values import FILE_TYPES, FOLDER_TYPES, OutputFile, network_name, network_names
from cnnkit.cli.written_folders import exported_folder, feature_store, saved_classifier
from cnnkit.recipes import RECIPES

SHELLS = ("bash", "zsh", "tcsh")
# shtab's script completes the words that argparse gets. These functions pass them to it as
# `cnnkit.cli.main` does: `cnnkit-train` is `cnnkit train`, `help` and `-q` before a command are
# left out, and a command with a subcommand is one word (with a dash, because a name of a command
# with a space is an error of syntax in zsh).
_BASH = """
_cnnkit() {
  if [[ ${COMP_WORDS[0]##*/} == cnnkit-train ]]; then
    COMP_WORDS=(cnnkit train "${COMP_WORDS[@]:1}")
    (( ++COMP_CWORD ))
  fi
  while (( COMP_CWORD > 1 )) && [[ ${COMP_WORDS[1]} =~ ^(help|-q|--quiet|-v|--verbose)$ ]]; do
    COMP_WORDS=(cnnkit "${COMP_WORDS[@]:2}")
    (( --COMP_CWORD ))
  done
  if (( COMP_CWORD > 2 )) && [[ "${COMP_WORDS[1]} ${COMP_WORDS[2]}" =~ ^(%JOINED%)$ ]]; then
    COMP_WORDS=(cnnkit "${COMP_WORDS[1]}-${COMP_WORDS[2]}" "${COMP_WORDS[@]:3}")
    (( --COMP_CWORD ))
  fi
  _shtab_cnnkit_pos_0_choices=(%FIRST%)
  _shtab_cnnkit
  if (( COMP_CWORD == 2 )); then
    case ${COMP_WORDS[1]} in
      %CASES%
    esac
  fi
}

complete -o bashdefault -F _cnnkit cnnkit cnnkit-train
"""
_BASH_CASE = '%COMMAND%) COMPREPLY+=($(compgen -W %SUBCOMMAND% -- "${COMP_WORDS[2]}")) ;;'
_ZSH = """
functions[_cnnkit_words]=$functions[_shtab_cnnkit]
_shtab_cnnkit() {
  if [[ ${words[1]:t} == cnnkit-train ]]; then
    words=(cnnkit train "${(@)words[2,-1]}")
    (( ++CURRENT ))
  fi
  while (( CURRENT > 2 )) && [[ $words[2] == (help|-q|--quiet|-v|--verbose) ]]; do
    words=(cnnkit "${(@)words[3,-1]}")
    (( --CURRENT ))
  done
  if (( CURRENT > 3 )) && [[ "$words[2] $words[3]" == (%JOINED%) ]]; then
    words=(cnnkit "$words[2]-$words[3]" "${(@)words[4,-1]}")
    (( --CURRENT ))
  fi
  if (( CURRENT == 2 )); then
    compadd -- %HELP%
  elif (( CURRENT == 3 )); then
    case $words[2] in
      %CASES%
    esac
  fi
  _cnnkit_words
}
"""
_ZSH_CASE = "%COMMAND%) compadd -- %SUBCOMMAND% ;;"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "shell", metavar="SHELL", choices=SHELLS, help=f"one of {', '.join(SHELLS)}"
    )


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    require_packages("shtab", purpose="`cnnkit completion`")
    import sys

    import shtab

    from cnnkit.cli.main import all_command_names, build_parser, command_names

    joined = [] if args.shell == "tcsh" else sorted({*all_command_names()} - {*command_names()})
    parser = build_parser(commands=[*command_names(), *joined])
    _name_with_dashes(parser, joined)
    for leaf in leaf_parsers(parser):
        for action in options_of(leaf):
            if action.type in FILE_TYPES or isinstance(action.type, OutputFile):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif action.type in (*FOLDER_TYPES, exported_folder, feature_store, saved_classifier):
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            elif action.type in (network_name, network_names):
                action.choices = tuple(PAPERS)
            elif action.dest == "recipe" or leaf.prog == "cnnkit recipes" and action.dest == "name":
                action.choices = tuple(RECIPES)
    preamble = _fill(_ZSH, _ZSH_CASE, joined) if args.shell == "zsh" else ""
    script = shtab.complete(parser, args.shell, preamble=preamble)
    if args.shell == "bash":
        script += "\n" + _fill(_BASH, _BASH_CASE, joined)
    # Only the words before the dash are typed.
    for name in joined:
        script = re.sub(rf"^ *{_dashed(name)}:.*\n", "", script, flags=re.MULTILINE)
    script = script.replace("#compdef cnnkit\n", "#compdef cnnkit cnnkit-train\n", 1)
    print_text(script.rstrip("\n"), sys.stdout)
    return 0


def _name_with_dashes(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Rename commands of two words in a parser: "export verify" to "export-verify"."""
    [action] = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    for one in action._choices_actions:
        if one.dest in names:
            action.choices[_dashed(one.dest)] = action.choices.pop(one.dest)
            one.dest = _dashed(one.dest)


def _dashed(name: str) -> str:
    return name.replace(" ", "-")


def _fill(text: str, case: str, joined: Sequence[str]) -> str:
    """Return a function of a shell with the names of the commands in it."""
    from cnnkit.cli.main import HELP, command_names

    cases = [
        case.replace("%COMMAND%", command).replace("%SUBCOMMAND%", subcommand)
        for command, subcommand in (name.split(" ") for name in joined)
    ]
    return (
        text.replace("%JOINED%", "|".join(joined).replace(" ", "\\ "))
        .replace("%FIRST%", " ".join([*command_names(), HELP]))
        .replace("%HELP%", HELP)
        .replace("%CASES%", "\n      ".join(cases))
    )
