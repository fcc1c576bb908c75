"""Measure the errors of trained networks by the test protocols of the papers.

Several networks are an ensemble, whose probabilities are averaged. Results are kept in the folder
`evaluations` in the first run, or beside the first file; a command that was stopped goes on when it
is run again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnkit.cli.console import (
    add_json_argument,
    print_error,
    print_json,
    print_left_out,
    print_line,
    print_table,
    progress_bar,
)
from cnnkit.cli.load_network import (
    add_network_arguments,
    builder_arguments,
    check_networks,
    load_network,
)
from cnnkit.cli.values import COUNT, DatasetSpec, WholeNumbers, input_file
from cnnkit.errors import UsageError
from cnnkit.run_folder import RunFolder

if TYPE_CHECKING:
    from cnnkit.evaluation.ensemble import EvaluatedModel
    from cnnkit.evaluation.metrics import Evaluation
    from cnnkit.evaluation.published import PublishedError

# With more classes, only the worst of them are printed.
MAX_LISTED_CLASSES = 20
# All that are kept are in the results.
MAX_LISTED_MISTAKES = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_network_arguments(
        parser, "runs", nargs="+", help="run folders, .keras files, or weights files of others"
    )
    parser.add_argument(
        "--dataset",
        metavar="SPEC",
        type=DatasetSpec(),
        help="dataset of the test images (default: the run's; required for files)",
    )
    parser.add_argument(
        "--labels",
        metavar="FILE",
        type=input_file,
        help="class names of the networks in files, one a line (default: the network's own, or the"
        " dataset's in their order)",
    )
    parser.add_argument(
        "--protocol",
        default="center",
        choices=("center", "ten-crop", "dense", "multi-crop", "dense+multi-crop"),
        help="default: center",
    )
    parser.add_argument(
        "--scales",
        type=WholeNumbers(minimum=1),
        metavar="PIXELS,...",
        help="shorter sides of the rescaled images (default: the run's own)",
    )
    parser.add_argument(
        "--average",
        choices=("scores", "probabilities"),
        help="over crops and positions (default: as the papers do)",
    )
    parser.add_argument("--batch-size", type=COUNT, default=64, metavar="IMAGES")
    parser.add_argument("--strategy", default="default", choices=("default", "mirrored"))
    parser.add_argument("--replicas", type=COUNT, help="replicas under --strategy mirrored")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate, save the results and print a table."""
    _check(args)
    check_networks(args, args.runs)
    runs = {path: RunFolder.open(path) for path in args.runs if not Path(path).is_file()}
    for one in runs.values():
        one.finished_model()
    if not runs and args.dataset is None:
        raise UsageError(
            "--dataset must name the test images: the network of a file was trained elsewhere",
            expected="--dataset SPEC",
        )

    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    document, members, result, paper = _evaluate(args, runs, args.scales)
    if args.json:
        print_json(_with_files(document))
        return 0
    print_table(_rows(result, members, paper))
    if len(result.classes) > MAX_LISTED_CLASSES:
        print_line(f"the {MAX_LISTED_CLASSES} worst of {len(result.classes)} classes are shown")
    error = result.calibration.error
    print_line(f"expected calibration error {error:.1%}; all results in {document['file']}")
    _print_mistakes(result, document["dataset"])
    return 0


def _check(args: argparse.Namespace) -> None:
    """Check the combination of options."""
    if args.replicas is not None and args.strategy != "mirrored":
        raise UsageError("--replicas requires --strategy mirrored", received=args.strategy)
    if args.scales is not None and len(set(args.scales)) < len(args.scales):
        raise UsageError(
            "--scales must be different sides", received=",".join(map(str, args.scales))
        )
    if len(set(args.runs)) < len(args.runs):
        raise UsageError("`MODEL` must not be given twice", received=" ".join(args.runs))


def _evaluate(
    args: argparse.Namespace, runs: dict[str, RunFolder], scales: tuple[int, ...] | None
) -> tuple[dict[str, Any], list[EvaluatedModel], Evaluation, PublishedError | None]:
    """Evaluate the networks and save the results.

    Args:
        args: The arguments.
        runs: By path, those of the networks that are runs.
        scales: Shorter sides of the rescaled images.

    Returns:
        The saved document, the members of the ensemble, the result, and the paper's errors for the
        same networks and protocol.
    """
    from cnnkit.evaluation import evaluate
    from cnnkit.evaluation.ensemble import (
        align_classes,
        held_out_images,
        runs_of_changed_dataset,
    )
    from cnnkit.evaluation.protocols import check_average, find_protocol
    from cnnkit.evaluation.published import published_errors
    from cnnkit.evaluation.result_store import progress_path, result_path
    from cnnkit.evaluation.run_results import evaluation_request, save_evaluation
    from cnnkit.training import get_strategy

    find_protocol(args.protocol)
    check_average(args.average)
    source, seed = held_out_images(list(runs.values()), args.dataset)
    print_left_out(source)
    for one in runs_of_changed_dataset(list(runs.values()), source):
        print_error(
            f"note: {source.spec} has changed since {one.path} was trained: test images may have "
            "been training images"
        )
    strategy = get_strategy(args.strategy, args.replicas)
    with strategy.scope():
        members, labels = _load_members(args, runs, source.class_names, scales)
    split = align_classes(source, labels)
    networks = [runs[path].finished_model() if path in runs else Path(path) for path in args.runs]
    request = evaluation_request(members, networks, source, args.protocol, args.average)
    if len(runs) < len(networks):
        # What else decides about the network of a file.
        request["options"] = [args.model, args.model_option, list(labels)]
    path = result_path(next((one.path for one in runs.values()), networks[0].parent), request)
    with progress_bar(len(split), resumed=True) as progress:
        result = evaluate(
            members,
            split,
            labels,
            protocol=args.protocol,
            average=args.average,
            batch_size=args.batch_size,
            strategy=strategy,
            state=progress_path(path),
            progress=progress,
        )
    paper = None
    if len(runs) == len(networks):
        configs = [runs[path].config for path in args.runs]
        trained = [(one, member.scales) for one, member in zip(configs, members, strict=True)]
        paper = published_errors(trained, args.protocol, len(labels))
    file, document = save_evaluation(path, request, result, runs=args.runs, seed=seed, paper=paper)
    return {"file": str(file), **document}, members, result, paper


def _load_members(
    args: argparse.Namespace,
    runs: dict[str, RunFolder],
    dataset_classes: tuple[str, ...],
    scales: tuple[int, ...] | None,
) -> tuple[list[EvaluatedModel], tuple[str, ...]]:
    """Return the networks in the order of the arguments, and the classes of the evaluation."""
    from cnnkit.evaluation.ensemble import evaluated_model, evaluated_run
    from cnnkit.models.class_names import class_captions, class_names

    options = builder_arguments(args)
    labels = next((one.class_names for one in runs.values()), ())
    members: dict[str, EvaluatedModel] = {}
    for path in args.runs:
        if path in runs:
            continue
        loaded = load_network(path, labels_file=args.labels, classifier=True, **options)
        saved = class_captions(loaded.model) if class_names(loaded.model) else None
        names = loaded.given_labels or saved or dataset_classes
        labels = labels or names
        members[path] = evaluated_model(loaded.model, scales, path, names, labels)
    for path, one in runs.items():
        members[path] = evaluated_run(one, scales, labels)
    return [members[path] for path in args.runs], labels


def _rows(
    result: Evaluation, members: Sequence[EvaluatedModel], paper: PublishedError | None
) -> list[dict[str, Any]]:
    """Return a row for each class, each member, the whole ensemble and the paper."""
    from cnnkit.evaluation.predictions import TOP

    classes = result.classes
    if len(classes) > MAX_LISTED_CLASSES:
        shown = [one for one in classes if one.images]
        shown.sort(key=lambda one: one.top1_error or 0.0, reverse=True)
        classes = tuple(shown[:MAX_LISTED_CLASSES])
    # With five classes or fewer, the class is always among the five most probable ones.
    tops = ("top1", "top5") if len(result.classes) > TOP else ("top1",)
    rows = [_row(one.label, one.images, one, tops) for one in classes]
    rows += [_row(_member_name(one), result.images, one, tops) for one in result.members]
    total = f"all, {_member_name(members[0])}" if len(members) == 1 else "together"
    rows.append(_row(total, result.images, result, tops))
    if paper:
        rows.append(_row(f"paper: {paper.source}", None, paper, tops))
        if paper.test_top5_error is not None:
            row = _row("paper, on its test images", None, None, tops)
            rows.append({**row, "top-5 error": f"{paper.test_top5_error:.1%}"})
    return rows


def _with_files(document: dict[str, Any]) -> dict[str, Any]:
    """Return results with the files of the images that they name, None for those of no folder."""
    from cnnkit.data import image_path

    named = {
        kind: [
            {"file": image_path(document["dataset"], one["name"]), **one} for one in document[kind]
        ]
        for kind in ("mistakes", "examples")
    }
    return {**document, **named}


def _print_mistakes(result: Evaluation, dataset: str) -> None:
    """Print the files of the worst mistakes with the probabilities of both classes."""
    from cnnkit.data import image_path

    shown = result.mistakes[:MAX_LISTED_MISTAKES]
    if not shown:
        return
    wrong = round(result.top1_error * result.images)
    of = f"the {len(shown)} worst of {wrong:,} mistakes" if wrong > len(shown) else "all mistakes"
    print_line(f"{of}, with the probabilities of the right class and of the answer:")
    print_table(
        [
            {
                "image": image_path(dataset, one.name) or one.name,
                "class": one.label,
                "": f"{one.probability:6.1%}",
                "answer": one.top[0][0],
                " ": f"{one.top[0][1]:6.1%}",
            }
            for one in shown
        ]
    )


def _member_name(member: Any) -> str:
    return f"{member.name} at {', '.join(map(str, member.scales))}"


def _row(name: str, images: int | None, errors: Any, tops: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"class": name, "images": images}
    for top in tops:
        error = getattr(errors, f"{top}_error", None)
        row[f"{top[:3]}-{top[3]} error"] = "-" if error is None else f"{error:.1%}"
        low, high = getattr(errors, f"{top}_interval", (None, None))
        row[f"{top[:3]}-{top[3]} 95 %"] = "-" if low is None else f"{low:.1%} to {high:.1%}"
    return row
