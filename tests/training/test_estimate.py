"""What a training takes, from some of its steps: sums by hand, and the files of a real training."""

import dataclasses
import tempfile

import pytest

from cnnkit.errors import UsageError
from cnnkit.training import estimate, estimate_training, train
from cnnkit.training.step import StepRunner
from tests.helpers.tiny_network import DIGITS_CONFIG as CONFIG
from tests.helpers.training_estimate import ESTIMATE


def test_the_times_add_up():
    assert ESTIMATE.steps_per_epoch == 10_010
    assert ESTIMATE.images_per_second == 256
    assert ESTIMATE.epoch_seconds == pytest.approx(10_010 * 0.5 + 100 + 3)
    assert ESTIMATE.total_seconds == pytest.approx(7 + 1281.167 + 90 * (5005 + 100 + 3))


@pytest.mark.parametrize(
    ("every", "checkpoints"),
    [(None, 1), ("10009", 2), ("10010", 1), ("1000", 11), ("30m", 3), ("86m", 1), ("85m", 2)],
)
def test_checkpoints_within_an_epoch_count(every, checkpoints):
    one = dataclasses.replace(ESTIMATE, checkpoint_every=every)
    assert one.epoch_seconds == pytest.approx(5105 + 3 * checkpoints)


def test_another_number_of_images_changes_the_times_in_proportion():
    tenth = ESTIMATE.with_images(128_000, 5000)
    assert (tenth.training_images, tenth.held_out_images) == (128_000, 5000)
    assert tenth.epoch_seconds == pytest.approx(1000 * 0.5 + 10 + 3)
    assert tenth.total_seconds == pytest.approx(7 + 128 + 90 * 513)
    assert tenth.disk_bytes == ESTIMATE.disk_bytes


@pytest.fixture
def clock(monkeypatch):
    """A clock that only steps, validation and checkpoints move on."""
    now, calls = [0.0], []
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: now[0])

    def slow(name, *seconds):
        method = getattr(StepRunner, name)

        def call(self, *arguments):
            now[0] += seconds[min(calls.count(name), len(seconds) - 1)]
            calls.append(name)
            return method(self, *arguments)

        monkeypatch.setattr(StepRunner, name, call)

    # The first steps trace; of the measured ones, one is late.
    slow("train", 30.0, 9.0, 9.0, 0.5, 0.5, 4.0, 0.5)
    slow("validate", 20.0, 0.25)
    return calls


def test_steps_are_measured_after_those_that_compile(clock):
    found = estimate_training(CONFIG, seconds=10)
    # 8 s of steps after the first measured one: 0.5 + 4 and eight of 0.5.
    assert (found.steps, found.step_seconds) == (10, 0.5)
    # The 90th percentile of ten numbers lies between the ninth and the tenth.
    assert found.step_spread == pytest.approx((0.5, 0.5 + 0.1 * (4 - 0.5)))
    assert clock.count("train") == 3 + 10
    assert found.start_seconds == 30
    # Batches of 100, 100, 100 and 59 images. The first does not count; 2 s are eight others.
    assert clock.count("validate") == 1 + 8
    images = (100 + 100 + 59) + (100 + 100 + 100 + 59) + 100
    assert found.validation_seconds == pytest.approx(2 / images)
    assert (found.training_images, found.held_out_images, found.classes) == (1438, 359, 10)
    assert (found.batch_size, found.epochs, found.steps_per_epoch) == (100, 3, 15)


def test_the_disk_is_that_of_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    config = dataclasses.replace(CONFIG, keep_epochs=(1, 2), keep_best=True, keep_checkpoints=2)
    found = estimate_training(config, seconds=0.01)
    assert list(tmp_path.iterdir()) == []
    run = train(config, tmp_path / "run")
    files = [file for file in run.path.rglob("*") if file.suffix in (".keras", ".npz")]
    size = sum(file.stat().st_size for file in files if file.name != "statistics.npz")
    assert len(files) == 4 + 2 + 1
    assert found.disk_bytes == pytest.approx(size, rel=0.01)
    assert found.memory_bytes > 100e6


def test_the_mean_image_takes_time_for_each_image(monkeypatch):
    of_all = estimate_training(dataclasses.replace(CONFIG, mean="pixel"), seconds=0.01)
    assert of_all.mean_seconds > 0
    # At 8 x 8 pixels not even a second.
    assert of_all.mean_seconds < 1
    assert estimate_training(CONFIG, seconds=0.01).mean_seconds == 0


@pytest.mark.parametrize(
    ("config", "seconds", "text"),
    [
        (CONFIG, 0, "`seconds` must be above 0"),
        (CONFIG, float("nan"), "`seconds` must be above 0"),
        (dataclasses.replace(CONFIG, strategy="multiworker"), 1, "of a single process"),
        (dataclasses.replace(CONFIG, model="tinny"), 1, "tinny"),
    ],
)
def test_wrong_arguments_are_refused(config, seconds, text):
    with pytest.raises(UsageError, match=text):
        estimate_training(config, seconds=seconds)
