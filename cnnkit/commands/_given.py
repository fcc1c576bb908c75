"""The trained network that a command is asked about, from a run, a model or a weights file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnkit.errors import UsageError, unknown_name

if TYPE_CHECKING:
    import keras

    from cnnkit.data import Augmentation
    from cnnkit.export import Origin


@dataclass(frozen=True)
class Given:
    """A network, and what is known of it.

    Attributes:
        model: The network.
        labels: Names of its classes; numbers where they are not known.
        augmentation: How held-out images were cut, or None where that is not known.
        origin: Where it comes from.
    """

    model: keras.Model
    labels: tuple[str, ...]
    augmentation: Augmentation | None
    origin: Origin


def read_network(
    path: str, name: str | None, options: Mapping[str, Any], labels_file: str | None
) -> Given:
    """Reads RUN, MODEL.keras or WEIGHTS.

    Args:
        path: A run folder, a `.keras` file, or a weights file of others.
        name: Network that the weights are of; None where only one fits.
        options: Arguments of its builder.
        labels_file: File of the class names, one a line, in place of those that come along.

    Raises:
        UsageError: If there is no such file, or it is not told which network it is.
        RunError: If the training of the run has not come to its end.
    """
    given = _of_run(Path(path)) if Path(path).is_dir() else _of_file(path, name, options)
    if labels_file is None:
        return given
    if not Path(labels_file).is_file():
        raise UsageError(f"No file {labels_file}", expected="class names, one a line")
    labels = tuple(Path(labels_file).read_text().splitlines())
    return replace(given, labels=labels)


def _of_run(path: Path) -> Given:
    from cnnkit.export import Origin
    from cnnkit.models import load_model
    from cnnkit.runs import Run
    from cnnkit.training.measured import held_out_augmentation

    run = Run.open(path)
    model = load_model(run.finished_model())
    config, metrics = run.config, run.metrics
    accuracy = metrics[-1].get("val_accuracy") if metrics else None
    origin = Origin(
        f"the run {path.resolve().name}",
        _dataset(config.dataset),
        len(metrics),
        None if accuracy is None else 1 - accuracy,
    )
    return Given(model, run.labels, held_out_augmentation(config), origin)


def _of_file(path: str, name: str | None, options: Mapping[str, Any]) -> Given:
    from cnnkit.export import Origin
    from cnnkit.models import build, class_names, load_model, open_weights

    origin = Origin(Path(path).name)
    if path.endswith(".keras") and name is None:
        model = load_model(path)
    else:
        file = open_weights(path)
        if file.classes is None:
            raise UsageError(f"{path} has no dense layers", expected="weights of a classifier")
        model = build(name or _only_fit(file), weights=file, classes=file.classes, **options)
    named = class_names(model)
    if named is None:
        named = tuple(map(str, range(model.output_shape[-1])))
    return Given(model, named, None, origin)


def _only_fit(file) -> str:
    from cnnkit.models import BUILDERS
    from cnnkit.models.weights.fitting import fits

    fitting = [fit.network for fit in fits(file) if fit.problem is None]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise unknown_name("network of", str(file.path), BUILDERS, hint="Name it with --model")
    raise UsageError(
        f"{file.path} fits more than one network",
        expected=f"--model {' or '.join(fitting)}",
    )


def _dataset(spec: str) -> str:
    """Returns a dataset's name without the folders of the machine that it was trained on."""
    kind, colon, place = spec.partition(":")
    return kind + colon + Path(place).name
