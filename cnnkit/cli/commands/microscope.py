"""Write the microscope: pages that show what every unit of a network responds to.

For each unit, the nine images of a dataset that excite it most stand beside what the deconvnet
finds in them (Zeiler & Fergus 2013, Fig. 2), with the classes that excite it and how often it
fires. The site is a folder that opens in a browser without a server or a network: open its
index.html. Each unit has a stable address, conv5/unit-0123.html. After an interruption the same
command keeps the units that are done.
"""

from __future__ import annotations

import argparse

from cnnkit.cli.console import (
    add_json_argument,
    print_json,
    print_left_out,
    print_line,
    progress_bar,
)
from cnnkit.cli.load_network import add_network_arguments, check_networks, load_from_arguments
from cnnkit.cli.read_image import command_decoding
from cnnkit.cli.values import COUNT, INDEX, output_folder
from cnnkit.cli.visualize.figure import (
    add_dataset_argument,
    add_image_size_argument,
    add_split_argument,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_network_arguments(parser)
    add_dataset_argument(parser)
    parser.add_argument(
        "--output", required=True, type=output_folder, metavar="SITE", help="folder of the site"
    )
    # The names under which words of a network are checked.
    parser.add_argument(
        "--layers", dest="layer", metavar="LAYER", nargs="+",
        help="for example conv3 conv5 (default: all convolutions)",
    )  # fmt: skip
    parser.add_argument(
        "--units", dest="unit", type=INDEX, metavar="UNIT", nargs="+",
        help="numbers of units of every layer (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--sample", type=COUNT, metavar="N",
        help="search this many images, evenly spaced (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--images", type=COUNT, default=0, metavar="N",
        help="pages of this many images: occlusion, saliency, Grad-CAM (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--rules", choices=("guided", "gradient"), nargs="+", default=(),
        help="backward rules that units are projected by besides the deconvnet",
    )  # fmt: skip
    add_split_argument(parser, "test")
    add_image_size_argument(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace a site that exists")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Write the site, and print the path of its first page."""
    from cnnkit.reports.microscope.site_folder import check_site

    check_site(args.output, overwrite=args.overwrite)
    check_networks(args, [args.network])

    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.data import load_dataset
    from cnnkit.reports.microscope.write import write_microscope

    loaded = load_from_arguments(args)
    seed = 0 if loaded.run is None else loaded.run.config.seed
    source = load_dataset(args.dataset, seed=seed, decoding=command_decoding())
    print_left_out(source)
    page = write_microscope(
        loaded.model,
        source,
        args.output,
        layers=args.layer,
        units=args.unit,
        sample=args.sample,
        images=args.images,
        split=args.split,
        image_size=args.image_size,
        rules=args.rules,
        run=loaded.run,
        overwrite=args.overwrite,
        progress=progress_bar,
    )
    if args.json:
        print_json({"page": str(page), "network": args.network})
    else:
        print_line(str(page))
    return 0
