"""Tests of the retry policy: which failures are repeated, how often, after which delay."""

from __future__ import annotations

import pytest

from cnnkit.client.errors import (
    ConnectionLost,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    NotAuthorized,
    ServerBusy,
    ServerError,
    ServerUnreachable,
    TLSError,
)
from cnnkit.client.flow import Deadline
from cnnkit.client.retry import RetryPolicy, backoff_delay
from cnnkit.errors import UsageError

NOT_STARTED = [ServerUnreachable, ServerBusy]
FINAL = [DeadlineExceeded, InvalidRequest, ModelNotFound, NotAuthorized, TLSError, ServerError]


def _delay(kind: type[ServerError], *, attempt: int = 1, seconds: float = 60, **options: bool):
    error = kind("A failure", code="UNAVAILABLE", details="")
    return RetryPolicy(3).delay(
        error, attempt, Deadline(seconds), **{"idempotent": False, **options}
    )


@pytest.mark.parametrize("kind", NOT_STARTED)
def test_a_call_that_was_not_started_is_repeated_until_the_attempts_are_used(kind):
    assert _delay(kind) is not None and _delay(kind, attempt=2) is not None
    assert _delay(kind, attempt=3) is None


@pytest.mark.parametrize("kind", FINAL)
def test_other_failures_are_not_repeated(kind):
    assert _delay(kind, idempotent=True) is None


def test_after_a_lost_connection_only_an_idempotent_call_is_repeated():
    assert _delay(ConnectionLost, idempotent=True) is not None
    assert _delay(ConnectionLost, idempotent=False) is None


def test_no_attempt_begins_after_the_deadline():
    # The first delay is at least 0.05 s.
    assert _delay(ServerBusy, seconds=0.04) is None


@pytest.mark.parametrize(("attempt", "longest"), [(1, 0.1), (2, 0.2), (3, 0.4), (5, 1.6), (9, 2.0)])
def test_the_delay_doubles_up_to_two_seconds_with_jitter_of_one_half(attempt, longest):
    delays = [backoff_delay(attempt) for _ in range(200)]
    assert longest / 2 <= min(delays) < 0.6 * longest
    assert 0.9 * longest < max(delays) <= longest


def test_max_attempts_must_be_positive():
    with pytest.raises(UsageError, match="`max_attempts` must be positive.*>= 1.*0"):
        RetryPolicy(0)
