"""What all worker processes have to agree on: the first one tells, the others hear."""

from __future__ import annotations

import contextlib
import functools
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from cnnkit.errors import RunError
from cnnkit.training.strategy import process_of

# What TensorFlow raises in a process when another one has gone.
GONE = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.FailedPreconditionError,
)


@contextmanager
def all_answering(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turns TensorFlow's error about a process that has gone into one line.

    A process that ends closes its connections, which the others see in their next sum; one that
    is cut off is missed by TensorFlow's own asking, every 30 seconds.

    Raises:
        RunError: If another process no longer answers.
    """
    process, processes = process_of(strategy)
    try:
        yield
    except GONE as error:
        if processes == 1:
            raise
        raise RunError(
            f"Worker {process} stops: another of the {processes} workers no longer answers",
            hint="Start all of them again with --resume",
        ) from error


def leave_together(strategy: tf.distribute.Strategy) -> None:
    """Waits until every process has come here, the first one's files written.

    Raises:
        RunError: If another process has gone before it came here.
    """
    with all_answering(strategy):
        first_tells(strategy, b"written")
    # Who has heard that may end, and close the connection on one that is still listening. So all
    # meet again; whoever comes here has heard, and what becomes of this sum is all the same.
    with contextlib.suppress(*GONE):
        first_tells(strategy, b"heard")


def first_tells(strategy: tf.distribute.Strategy, data: bytes) -> bytes:
    """Returns the first process's `data` in every process.

    Example:
        >>> import tensorflow as tf
        >>> first_tells(tf.distribute.get_strategy(), b"alone")
        b'alone'
    """
    process, processes = process_of(strategy)
    if processes == 1:
        return data
    size = int(_tell(strategy, np.array([len(data)], np.int32))[0])
    words = np.zeros(-(-size // 4), np.int32)
    if process == 0:
        words = np.frombuffer(data.ljust(4 * len(words), b"\0"), np.int32)
    return _tell(strategy, words).tobytes()[:size]


def same_arrays(
    strategy: tf.distribute.Strategy, arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the first process's arrays in every process."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    with np.load(io.BytesIO(first_tells(strategy, file.getvalue())), allow_pickle=False) as archive:
        return dict(archive)


def same_variables(strategy: tf.distribute.Strategy, variables: Sequence) -> None:
    """Fills the variables of every process with the first one's, bit for bit."""
    if process_of(strategy)[1] == 1:
        return
    for variable in variables:
        value = np.asarray(variable.value)
        bits = _tell(strategy, np.atleast_1d(value).view(np.int32))
        variable.assign(bits.view(value.dtype).reshape(value.shape))


def check_same_work(strategy: tf.distribute.Strategy, work: Mapping[str, Any]) -> None:
    """Makes sure that all processes were given the same to do.

    Raises:
        RunError: In a process that was given something else than the first; it is named.
    """
    wanted = json.loads(first_tells(strategy, json.dumps(work).encode()))
    mine = json.loads(json.dumps(work))
    for name, value in wanted.items():
        if mine.get(name) != value:
            raise RunError(
                f"Worker {process_of(strategy)[0]} was started with another {name}",
                expected=value,
                received=mine.get(name),
            )


def _tell(strategy: tf.distribute.Strategy, words: np.ndarray) -> np.ndarray:
    """Sums the processes' int32 words, of which only the first one's count: its bits arrive."""
    return _summing(strategy)(tf.constant(words.ravel())).numpy()


@functools.cache
def _summing(strategy: tf.distribute.Strategy):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
    def summed(words):
        def on_replica(words):
            context = tf.distribute.get_replica_context()
            own = tf.where(tf.equal(context.replica_id_in_sync_group, 0), words, 0)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, own)

        return strategy.experimental_local_results(strategy.run(on_replica, args=(words,)))[0]

    return summed
