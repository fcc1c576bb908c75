"""List the training recipes, or show one in full.

`cnnkit recipes` lists all; `cnnkit recipes NAME` shows its source, command, cost, the result to
expect, its deviations from the paper, and every field.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from cnnkit.cli.console import add_json_argument, print_json, print_line
from cnnkit.config import TrainingConfig
from cnnkit.recipes import RECIPES, Recipe, find_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="a recipe")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print the list, or one recipe."""
    chosen = {args.name: find_recipe(args.name)} if args.name else RECIPES
    if args.json:
        document = {name: _document(recipe) for name, recipe in chosen.items()}
        print_json(document[args.name] if args.name else document, indent=2)
    elif args.name:
        for line in _describe(args.name, chosen[args.name]):
            print_line(line)
    else:
        width = max(map(len, chosen))
        for name, recipe in chosen.items():
            print_line(f"{name:<{width}}  {recipe.source}")
    return 0


def _document(recipe: Recipe) -> dict[str, Any]:
    document = dataclasses.asdict(recipe)
    document["parts"] = document.pop("stages")  # the key of version 0.1.0
    return document


def _describe(name: str, recipe: Recipe) -> list[str]:
    lines = [
        name,
        f"source    {recipe.source}",
        f"command   {recipe.command}",
        f"cost      {recipe.cost}",
        f"expect    {recipe.result}",
    ]
    lines += [f"needs     {need}: {reason}" for need, reason in recipe.needs.items()]
    lines += [f"deviates  {deviation}" for deviation in recipe.deviations]
    for part in recipe.stages:
        begins = ", from the weights of the part before" if part.follows else ""
        lines.append(f"part      {part.name}{begins}")
        lines += _fields(part.config)
    return lines + ([] if recipe.stages else _fields(recipe.config))


def _fields(config: TrainingConfig) -> list[str]:
    return [f"  {name} = {value!r}" for name, value in dataclasses.asdict(config).items()]
