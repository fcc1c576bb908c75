"""A training run at work: what its parts share."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cnnkit.config import TrainingConfig, interval
from cnnkit.data import Augmentation, Source, Split
from cnnkit.data.pipeline import step_count
from cnnkit.runs import Run
from cnnkit.training import checkpoint
from cnnkit.training.assembly import Assembly
from cnnkit.training.guards import Watch
from cnnkit.training.progress import Progress
from cnnkit.training.state import State
from cnnkit.training.stopping import Stop, Stopped


@dataclass
class Job:
    """What is trained, where it stands, and where it is written.

    Attributes:
        config: What was asked for.
        source: The dataset.
        run: The run folder.
        assembly: The network and its steps.
        shown: What is done to training images.
        held_out: What is done to held-out images.
        state: Where the run stands.
        progress: Hears what happens.
        watch: Notices what goes wrong.
        stop: Tells whether a signal has come.
        writes: Whether this process writes the run folder.
        seconds: Where the time went.
        saved: When the last checkpoint was written, and after which step.
    """

    config: TrainingConfig
    source: Source
    run: Run
    assembly: Assembly
    shown: Augmentation
    held_out: Augmentation
    state: State
    progress: Progress
    watch: Watch
    stop: Stop = field(default_factory=Stop)
    writes: bool = True
    seconds: Counter[str] = field(default_factory=Counter)
    saved: tuple[float, int] = (0.0, 0)

    def __post_init__(self) -> None:
        """Counts the time to the first checkpoint from now."""
        self.saved = (time.monotonic(), self.number)

    @property
    def training_images(self) -> Split:
        """The images that are learned from."""
        return self.source.splits["train"]

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return step_count(len(self.training_images), self.config.batch_size)

    @property
    def number(self) -> int:
        """Steps since training began."""
        return self.state.epochs * self.steps_per_epoch + self.state.step

    def checkpoint_is_due(self, number: int) -> bool:
        """Tells whether one is to be written after step `number` of the run."""
        steps, seconds = interval(self.config.checkpoint_every)
        when, last = self.saved
        if steps is not None:
            return number - last >= steps
        return seconds is not None and time.monotonic() - when >= seconds

    def save(self) -> None:
        """Writes a checkpoint."""
        with self.timed("checkpoint"):
            if self.writes:
                checkpoint.save(
                    self.run.checkpoints,
                    self.number,
                    self.state,
                    self.assembly.steps.state,
                    kept=self.config.keep_checkpoints,
                )
        self.saved = (time.monotonic(), self.number)

    def stop_if_asked(self) -> None:
        """Keeps the state and stops where a signal has come.

        Raises:
            Stopped: If one has.
        """
        if self.stop.signal is not None:
            self.save()
            where = f"after step {self.state.step} of epoch {self.state.epochs + 1}"
            raise Stopped(self.stop.signal, where, self.run.path)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Counts the time of the block under `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start
