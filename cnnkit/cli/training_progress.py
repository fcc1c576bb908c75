"""Show the progress of a training: a bar on a terminal, one line per epoch everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from cnnkit.cli.console import is_quiet, open_bar, print_line
from cnnkit.cli.option_names import in_options
from cnnkit.training import Callback

# Names of so many classes are printed.
MAX_LISTED_CLASSES = 5


class TerminalProgress(Callback):
    """Prints lines to a stream, and shows a bar on standard error; nothing with `--quiet`.

    Args:
        out: The stream of the lines.
        show_times: Whether to print the seconds that each part of the training took.

    Attributes:
        process: Index of this process among those of the training.
    """

    def __init__(self, out: TextIO, *, show_times: bool = False) -> None:
        self._out = out
        self._show_times = show_times
        self._epochs = 0
        self._bar: Any = None
        self.process = 0

    def on_train_begin(self, facts: Mapping[str, Any]) -> None:
        """Print the model, the dataset, the files left out, the devices and the deviations."""
        self._epochs, self.process = facts["epochs"], facts["process"]
        devices = facts["devices"]
        replicas = f"{len(devices)} replica{'s' if len(devices) > 1 else ''} on the {devices[0]}"
        left_out = f"; {in_options(facts['left_out'])}" if facts["left_out"] else ""
        few = facts["classes"] <= MAX_LISTED_CLASSES
        names = f" ({', '.join(facts['class_names'])})" if few else ""
        self._print(
            f"{facts['model']}, {facts['parameters']:,} parameters, "
            f"{facts['classes']} classes{names}; "
            f"{facts['training_images']:,} training and {facts['test_images']:,} held-out images; "
            f"{replicas}{left_out}"
        )
        if facts["recipe"] is not None:
            self._print_deviations(facts["recipe"], facts["deviations"], facts["changes"])
        if facts["first_epoch"] > facts["epochs"]:
            self._print(f"all {facts['epochs']} epochs are done already")
        elif facts["first_epoch"] > 1 or facts["first_step"] > 1:
            step = f", step {facts['first_step']}" if facts["first_step"] > 1 else ""
            self._print(f"going on with epoch {facts['first_epoch']}{step}")

    def _print_deviations(
        self, recipe: str, deviations: Sequence[str], changes: Sequence[str]
    ) -> None:
        """Print the changes to a recipe, and the number of its own differences from the paper."""
        own = len(deviations) - len(changes)
        parts = list(changes)
        if own:
            others = "other " if changes else ""
            ways = "way" if own == 1 else "ways"
            parts.append(f"{own} {others}{ways} that `cnnkit recipes {recipe}` lists")
        if parts:
            self._print(f"deviates from the paper: {'; '.join(parts)}")

    def on_message(self, message: str) -> None:
        """Print a message as a line of its own."""
        self._print(f"note: {in_options(message)}")

    def on_frozen_outputs(self, split: str, done: int, images: int) -> None:
        """Move the bar of the frozen layers."""
        if self._bar is None:
            what = "training" if split == "train" else "held-out"
            self._bar = open_bar(images, f"frozen layers, {what} images", initial=0, scale=True)
        self._bar.update(done - self._bar.n)
        if done == images:
            self.close()

    def on_train_batch_end(
        self, epoch: int, step: int, steps: int, images: int, loss: float
    ) -> None:
        """Move the bar: images, images/s, the remaining time of the epoch, the loss."""
        if self._bar is None:
            self._bar = open_bar(
                steps * images,
                f"epoch {epoch}/{self._epochs}",
                initial=(step - 1) * images,
                scale=True,
            )
        self._bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
        self._bar.update(images)
        if step == steps:
            self.close()

    def on_epoch_end(self, metrics: Mapping[str, Any]) -> None:
        """Print the losses, errors and speed of an epoch."""
        self._print(
            f"epoch {metrics['epoch']}/{self._epochs}  loss {metrics['loss']:.3f}  "
            f"error {1 - metrics['accuracy']:.1%}  held out: loss {metrics['val_loss']:.3f}  "
            f"error {1 - metrics['val_accuracy']:.1%}  {metrics['images_per_second']:.0f} images/s"
        )

    def on_train_end(self, seconds: Mapping[str, float]) -> None:
        """Print the seconds of each part of the training, if `show_times` is set."""
        if self._show_times:
            total = sum(seconds.values()) or 1
            parts = (
                f"{name} {value:.1f} s ({value / total:.0%})" for name, value in seconds.items()
            )
            self._print(f"time: {', '.join(parts)}")

    def close(self) -> None:
        """Remove the bar, if one is shown."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _print(self, text: str) -> None:
        if not is_quiet():
            print_line(text, self._out)
