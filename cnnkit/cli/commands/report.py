"""Write a report of a training run: one HTML page that needs no network.

The page shows the curves, the confusion matrix, the calibration, the worst mistakes with their
files and what speaks for each answer, the first-layer filters, the images that activate a few units
most, the configuration, and how to reproduce the run. It is one file, which can be sent and opened
anywhere. A run without results is evaluated first, with the center crop.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cnnkit.cli.console import add_json_argument, print_json, print_line, progress_bar
from cnnkit.cli.values import DatasetSpec, OutputFile, output_folder, run_folder
from cnnkit.cli.visualize.attribution import EXPLANATIONS
from cnnkit.run_folder import RunFolder

# Of the names of pages.
ENDINGS = (".html", ".htm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    # Not `run`: `args.run` is the function that runs the verb.
    parser.add_argument("folder", metavar="RUN", type=run_folder, help="run folder")
    parser.add_argument(
        "--output",
        type=report_output,
        metavar="REPORT",
        help="a folder for index.html, or a file .html (default: the folder report in the run)",
    )
    parser.add_argument(
        "--dataset",
        metavar="SPEC",
        type=DatasetSpec(),
        help="dataset of the test images (default: the run's)",
    )
    parser.add_argument(
        "--explain",
        metavar="METHOD",
        choices=EXPLANATIONS,
        default="gradcam",
        help="how to show what speaks for the answers of the worst mistakes: "
        f"{', '.join(EXPLANATIONS)} (default: gradcam)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a page that exists")
    add_json_argument(parser)


def report_output(text: str) -> str:
    """Return the path of a file .html or of a folder, where a page can be written."""
    return OutputFile()(text) if Path(text).suffix.lower() in ENDINGS else output_folder(text)


def run(args: argparse.Namespace) -> int:
    """Write the page, and print its path."""
    from cnnkit.reports.page_file import check_page

    folder = RunFolder.open(args.folder)
    check_page(folder, args.output, overwrite=args.overwrite, option="--output")

    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.reports.write import write_report

    page = write_report(
        folder,
        args.output,
        dataset=args.dataset,
        overwrite=args.overwrite,
        progress=progress_bar,
        explain=args.explain,
    )
    if args.json:
        print_json({"page": str(page), "run": args.folder})
    else:
        print_line(str(page))
    return 0
