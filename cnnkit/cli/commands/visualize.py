"""Draw figures of what a trained network has learned.

The picture is a .png, .svg or .pdf file. With NAME.png come NAME.png.json, its facts in words and
numbers, and NAME.png.npz, its arrays. Files that exist are replaced only with --overwrite.
"""

from __future__ import annotations

import argparse

from cnnkit.cli.console import add_json_argument, print_json, print_line, print_table
from cnnkit.cli.load_network import check_networks
from cnnkit.cli.picture import add_picture_arguments, check_picture_arguments
from cnnkit.cli.read_image import add_decoding_arguments, set_decoding
from cnnkit.cli.visualize import FIGURES
from cnnkit.cli.visualize.figure import BESIDE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the figures and their arguments."""
    names = parser.add_subparsers(metavar="NAME", dest="name", required=True)
    for name, command in FIGURES.items():
        figure = names.add_parser(name, help=command.summary, description=command.description)
        figure.formatter_class = argparse.RawDescriptionHelpFormatter
        command.add_arguments(figure)
        add_picture_arguments(figure, required=True)
        add_json_argument(figure)
        add_decoding_arguments(figure)
        figure.set_defaults(draw=command.draw)


def run(args: argparse.Namespace) -> int:
    """Draw one figure, or one for each layer, and write their facts and arrays."""
    output = check_picture_arguments(args, beside=BESIDE)
    if hasattr(args, "model"):
        networks = args.networks if hasattr(args, "networks") else [args.network]
        check_networks(args, networks)
    FIGURES[args.name].check(args)

    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    set_decoding(args)
    drawn = args.draw(args)
    figures = drawn if isinstance(drawn, dict) else {output: drawn}
    for path, figure in figures.items():
        figure.write_beside(path)
        if not args.json:
            print_line(f"{path}: {figure.summary}")
            if figure.table:
                print_table(figure.table)
    if args.json:
        facts = [dict(figure.facts) for figure in figures.values()]
        print_json(facts[0] if len(facts) == 1 else facts)
    return 0
