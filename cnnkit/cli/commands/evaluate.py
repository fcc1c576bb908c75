"""Measure the errors of trained networks by the protocols of the papers.

Several runs are an ensemble, whose probabilities are averaged. Results stay in the first run's
folder, in `evaluations`; a command that was stopped goes on when it is typed again.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from cnnkit.cli.console import parse_integers, print_json, progress_bar, table
from cnnkit.errors import UsageError

# More classes than this are not listed on the terminal, but for the worst.
LISTED = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders that `cnnkit train` wrote")
    parser.add_argument("--dataset", metavar="SPEC", help="whose test images (default: the run's)")
    parser.add_argument(
        "--protocol",
        default="center",
        help="center, ten-crop, dense, multi-crop or dense+multi-crop (default: center)",
    )
    parser.add_argument(
        "--scales",
        metavar="PIXELS,...",
        help="shorter sides of the rescaled images (default: the run's own)",
    )
    parser.add_argument(
        "--average",
        help="scores or probabilities, over crops and positions (default: as the papers do)",
    )
    parser.add_argument("--batch-size", type=int, default=64, metavar="IMAGES")
    parser.add_argument("--strategy", default="default", choices=("default", "mirrored"))
    parser.add_argument("--replicas", type=int, help="replicas under --strategy mirrored")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Evaluates, keeps the results and prints a table."""
    from cnnkit.run_folder import RunFolder

    scales = _scales(args.scales)
    if args.replicas is not None and args.strategy != "mirrored":
        raise UsageError("Replicas belong to --strategy mirrored", received=args.strategy)
    if args.replicas is not None and args.replicas < 1:
        raise UsageError("--replicas is out of range", expected="at least 1")
    if len(set(args.runs)) < len(args.runs):
        raise UsageError("A run is named twice", received=" ".join(args.runs))
    runs = [RunFolder.open(path) for path in args.runs]
    files = [one.finished_model() for one in runs]

    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.evaluation import evaluate
    from cnnkit.evaluation.ensemble import align_classes, evaluated_run, held_out_images
    from cnnkit.evaluation.protocols import check_average, find_protocol
    from cnnkit.evaluation.published import published_errors
    from cnnkit.evaluation.result_store import progress_path, result_path, save_results, sha256
    from cnnkit.training import get_strategy

    find_protocol(args.protocol)
    check_average(args.average)
    source, seed = held_out_images(runs, args.dataset)
    labels = runs[0].labels
    split = align_classes(source, labels)
    strategy = get_strategy(args.strategy, args.replicas)
    with strategy.scope():
        members = [evaluated_run(one, scales, labels) for one in runs]
    request = {
        "protocol": args.protocol,
        "scales": [list(member.scales) for member in members],
        "average": args.average,
        "dataset": source.spec,
        "fingerprint": source.fingerprint,
        "networks": [sha256(file) for file in files],
    }
    place = result_path(runs[0].path, request)
    with progress_bar(len(split), resumed=True) as progress:
        result = evaluate(
            members,
            split,
            labels,
            protocol=args.protocol,
            average=args.average,
            batch_size=args.batch_size,
            strategy=strategy,
            state=progress_path(place),
            progress=progress,
        )
    networks = [(one.config, member.scales) for one, member in zip(runs, members, strict=True)]
    paper = published_errors(networks, args.protocol, len(labels))
    document = {
        "run": args.runs[0],
        "runs": args.runs,
        "seed": seed,
        **request,
        "paper": paper and dataclasses.asdict(paper),
        **dataclasses.asdict(result),
    }
    file = save_results(document, place)
    progress_path(place).unlink(missing_ok=True)
    if args.json:
        print_json({"file": str(file), **document})
        return 0
    print(table(_rows(result, members, paper)))
    if len(result.classes) > LISTED:
        print(f"the {LISTED} worst of {len(result.classes)} classes are shown")
    print(f"expected calibration error {result.calibration.error:.1%}; all results in {file}")
    return 0


def _scales(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        sides = parse_integers(text)
    except argparse.ArgumentTypeError:
        sides = ()
    if not sides or min(sides) < 1 or len(set(sides)) < len(sides):
        raise UsageError(
            "--scales is a list of different sides", expected="256,384,512", received=text
        )
    return sides


def _rows(result, members, paper) -> list[dict[str, Any]]:
    classes = result.classes
    if len(classes) > LISTED:
        shown = [one for one in classes if one.images]
        classes = sorted(shown, key=lambda one: one.top1_error, reverse=True)[:LISTED]
    rows = [_row(one.label, one.images, one) for one in classes]
    rows += [_row(_named(one), result.images, one) for one in result.members]
    rows.append(_row(f"all, {_named(members[0])}" if len(members) == 1 else "together",
                     result.images, result))  # fmt: skip
    if paper:
        rows.append(_row(f"paper: {paper.source}", None, paper))
    return rows


def _named(member) -> str:
    return f"{member.name} at {', '.join(map(str, member.scales))}"


def _row(name: str, images: int | None, errors) -> dict[str, Any]:
    row: dict[str, Any] = {"class": name, "images": images}
    for top in ("top1", "top5"):
        error = getattr(errors, f"{top}_error")
        row[f"{top[:3]}-{top[3]} error"] = "-" if error is None else f"{error:.1%}"
        low, high = getattr(errors, f"{top}_interval", (None, None))
        row[f"{top[:3]}-{top[3]} 95 %"] = "-" if low is None else f"{low:.1%} to {high:.1%}"
    return row
