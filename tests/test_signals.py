"""Signals that are deferred."""

import signal
import subprocess
import sys
import threading

import pytest

from cnnkit._signals import defer_signals, interruptible


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_the_flag(number):
    before = signal.getsignal(number)
    with defer_signals() as stop:
        assert not stop.is_set()
        signal.raise_signal(number)
        assert stop.is_set()
        assert stop.signal == number
    assert signal.getsignal(number) is before


def test_a_second_signal_has_its_usual_effect():
    with pytest.raises(KeyboardInterrupt), defer_signals():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)


def test_further_signals_can_be_deferred_too():
    with defer_signals(restore_after_first=False) as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT


def test_other_threads_are_left_alone():
    flags = []

    def work():
        with defer_signals() as stop:
            flags.append(stop.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert flags == [False]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_block_can_be_interrupted(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_block_that_does_not_end_after_the_signal_is_ended_by_the_system():
    """As in a foreign function that does not return: Python runs no handler any more."""
    program = """
import signal
from cnnkit._signals import interruptible
with interruptible(0.05):
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        while True:
            pass
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=60)
    assert done.returncode == -signal.SIGALRM
