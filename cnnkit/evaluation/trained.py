"""Training runs as the networks of an evaluation, and the images that they did not see."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from cnnkit.data import Source, Split, load_source
from cnnkit.errors import DataError, UsageError
from cnnkit.evaluation.members import Member
from cnnkit.models import load_model
from cnnkit.runs import Run
from cnnkit.training.measured import held_out_augmentation


def member_of_run(run: Run, scales: Sequence[int] | None, labels: Sequence[str]) -> Member:
    """Returns the trained network of a run.

    Args:
        run: A finished run.
        scales: Shorter sides at which it is tested; None is the one at which the held-out images
            were seen in training.
        labels: Names of the evaluation's classes.

    Raises:
        UsageError: If the run knows other classes.
        RunError: If it is not finished.
    """
    model = load_model(run.finished_model())
    augmentation = held_out_augmentation(run.config)
    columns = None
    if tuple(labels) != run.labels:
        _check_unique(run.labels, str(run.path))
        if set(labels) != set(run.labels):
            other = sorted(set(labels) ^ set(run.labels))
            raise UsageError(
                f"The runs know different classes: {run.path} is not like the first",
                expected=f"the same {len(labels)} classes in every run",
                received=f"only one of them knows {_some(other)}",
            )
        columns = tuple(run.labels.index(label) for label in labels)
    sides = tuple(scales or augmentation.scales[:1])
    return Member(str(run.path), model, sides, augmentation.image_size, columns)


def held_out_images(runs: Sequence[Run], spec: str | None) -> tuple[Source, int]:
    """Opens the dataset of an evaluation.

    Args:
        runs: Whose networks are evaluated.
        spec: As `cnnkit.data.load_source` takes it; None is the dataset of the runs.

    Returns:
        The dataset, and the seed of its split.

    Raises:
        UsageError: If the runs were trained on different images, so that those which one did not
            see were shown to another.
    """
    known = {run.config.dataset for run in runs}
    if spec is None and len(known) > 1:
        raise UsageError(
            "The runs were trained on different datasets",
            expected="--dataset SPEC, which names the one to evaluate on",
            received=", ".join(sorted(known)),
        )
    spec = spec or known.pop()
    # A dataset without a test split is split by the seed of the training.
    own = [run.config.seed for run in runs if run.config.dataset == spec]
    seeds = list(dict.fromkeys(own or [runs[0].config.seed]))
    sources = [load_source(spec, seed=seed) for seed in seeds]
    if len({source.fingerprint for source in sources}) > 1:
        raise UsageError(
            "The runs held out different images, by their different seeds: what one did not see "
            "was shown to another",
            expected="runs of one --seed, or a dataset with a test split of its own",
        )
    return sources[0], seeds[0]


def by_name(source: Source, labels: Sequence[str]) -> Split:
    """Returns the test images of a dataset, their classes numbered as in `labels`.

    Raises:
        DataError: If a class of theirs is none of `labels`.
    """
    split = source.splits["test"]
    if tuple(labels) == source.labels:
        return split
    _check_unique(labels, "the run")
    _check_unique(source.labels, source.spec)
    # A class without a test image asks nothing of the network.
    shown = [source.labels[label] for label in np.unique(split.labels)]
    missing = [label for label in shown if label not in labels]
    if missing:
        raise DataError(
            f"The classes of {source.spec} do not fit those of the network",
            expected=f"classes among its {len(labels)}: {_some(labels)}",
            received=f"{len(missing)} that it does not know: {_some(missing)}",
        )
    places = {label: number for number, label in enumerate(labels)}
    lookup = np.array([places.get(label, -1) for label in source.labels], np.int32)
    return dataclasses.replace(split, labels=lookup[split.labels])


def _check_unique(labels: Sequence[str], where: str) -> None:
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise DataError(
            f"Classes are matched by their names, and {where} has several of one name",
            received=_some(twice),
        )


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels[:5]) + (" ..." if len(labels) > 5 else "")
