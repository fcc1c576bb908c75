"""Draw what a trained network sees.

Every figure NAME.png comes with NAME.png.json, a description in words and numbers, and NAME.png.npz
with the arrays.
"""

from __future__ import annotations

import argparse

from cnnkit.cli.console import add_json_argument, check_png, print_json
from cnnkit.cli.visualize import figure_commands


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the figures and their arguments."""
    names = parser.add_subparsers(metavar="NAME", dest="name", required=True)
    for name, module in figure_commands().items():
        summary = (module.__doc__ or name).splitlines()[0].rstrip(".")
        figure = names.add_parser(name, help=summary, description=module.__doc__)
        figure.formatter_class = argparse.RawDescriptionHelpFormatter
        module.add_arguments(figure)
        figure.add_argument("--output", required=True, metavar="PNG", help="the file to write")
        add_json_argument(figure)
        figure.set_defaults(draw=module.draw)


def run(args: argparse.Namespace) -> int:
    """Draw the figure, and write the description and the arrays."""
    output = check_png(args.output)

    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    drawn = args.draw(args)
    # Most draw one picture, some one for each layer.
    pictures = drawn if isinstance(drawn, dict) else {output: drawn}
    for path, one in pictures.items():
        one.write_beside(path)
        if not args.json:
            print(f"{path}: {one.said}")
    if args.json:
        facts = [dict(one.facts) for one in pictures.values()]
        print_json(facts[0] if len(facts) == 1 else facts)
    return 0
