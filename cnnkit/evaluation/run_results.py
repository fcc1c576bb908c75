"""Results of one run: the newest that fit its network and its dataset, or a new evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnkit._file_tree import EVALUATIONS
from cnnkit.data import Dataset
from cnnkit.errors import DataError
from cnnkit.evaluation.ensemble import EvaluatedModel, align_classes, evaluated_run
from cnnkit.evaluation.evaluate import evaluate
from cnnkit.evaluation.metrics import Evaluation
from cnnkit.evaluation.published import PublishedError, published_errors
from cnnkit.evaluation.result_store import (
    progress_path,
    read_results,
    result_path,
    save_results,
    sha256,
)
from cnnkit.run_folder import RunFolder

PROTOCOL = "center"


def evaluation_request(
    members: Sequence[EvaluatedModel],
    networks: Sequence[Path],
    dataset: Dataset,
    protocol: str,
    average: str | None = None,
) -> dict[str, Any]:
    """Return what decides about the results of an evaluation: the name of their file is its hash.

    Args:
        members: The networks of the ensemble.
        networks: Their files.
        dataset: The dataset.
        protocol: Name of the protocol.
        average: What is averaged over crops and positions; None as the papers do.
    """
    return {
        "protocol": protocol,
        "scales": [list(member.scales) for member in members],
        "average": average,
        "dataset": dataset.spec,
        "fingerprint": dataset.fingerprint,
        "networks": [sha256(network) for network in networks],
    }


def save_evaluation(
    path: Path,
    request: Mapping[str, Any],
    result: Evaluation,
    *,
    runs: Sequence[str],
    seed: int,
    paper: PublishedError | None,
) -> tuple[Path, dict[str, Any]]:
    """Save the results of an evaluation, and delete its progress.

    Args:
        path: `result_path` of the request.
        request: Result of `evaluation_request`.
        result: The results.
        runs: Paths of the networks, as they were given.
        seed: Seed of the dataset's split.
        paper: The errors that a paper reports for the same, or None.

    Returns:
        The file that was written, and its content.
    """
    document = {
        "run": runs[0],
        "runs": list(runs),
        "seed": seed,
        **request,
        "paper": paper and dataclasses.asdict(paper),
        **dataclasses.asdict(result),
    }
    file = save_results(document, path)
    progress_path(path).unlink(missing_ok=True)
    return file, document


def find_results(run: RunFolder, dataset: Dataset) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest results of a run's network by itself on a dataset, with their file.

    Args:
        run: A finished run.
        dataset: The dataset.

    Raises:
        RunError: If a file of results cannot be read, or the run is not finished.
        DataError: If results name images or classes that do not exist.
    """
    network = sha256(run.finished_model())
    files = sorted(
        (run.path / EVALUATIONS).glob("*.json"), key=lambda file: file.stat().st_mtime_ns
    )
    for file in reversed(files):
        results = read_results(file)
        if (
            results.get("networks") == [network]
            and results.get("fingerprint") == dataset.fingerprint
            and results.get("calibration", {}).get("bins")
        ):
            _check_names(results, file, len(dataset.splits["test"]), run.class_names)
            return file, results
    return None


def _check_names(
    results: dict[str, Any], file: Path, images: int, class_names: Sequence[str]
) -> None:
    """Check that results name images of the test split and classes of the run."""
    if [one["label"] for one in results["classes"]] != list(class_names):
        raise DataError(f"{file} must have the classes of the run", hint="Evaluate again")
    for one in (*results["mistakes"], *results["examples"]):
        named = {one["label"], *(name for name, _ in one["top"])}
        if not named <= set(class_names) or one["index"] >= images:
            raise DataError(
                f"{file} must name images of the test split and classes of the run",
                hint="Evaluate again",
            )


def evaluate_run(
    run: RunFolder,
    dataset: Dataset,
    seed: int,
    *,
    progress: Callable[[int], object] = lambda images: None,
) -> tuple[Path, dict[str, Any]]:
    """Evaluate the network of a run by the center crop, and store the results in the run.

    Args:
        run: A finished run.
        dataset: The dataset, whose test images are used.
        seed: Seed of its split.
        progress: Called with the number of images that were evaluated since the last call.

    Returns:
        The file of the results, and the results.
    """
    member = evaluated_run(run, None, run.class_names)
    request = evaluation_request([member], [run.finished_model()], dataset, PROTOCOL)
    file = result_path(run.path, request)
    split = align_classes(dataset, run.class_names)
    result = evaluate(
        member, split, run.class_names, protocol=PROTOCOL, state=progress_path(file),
        progress=progress,
    )  # fmt: skip
    trained = [(run.config, member.scales)]
    paper = published_errors(trained, PROTOCOL, len(run.class_names))
    file, _ = save_evaluation(file, request, result, runs=[str(run.path)], seed=seed, paper=paper)
    return file, read_results(file)
