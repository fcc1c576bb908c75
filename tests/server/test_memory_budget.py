"""The memory of all open requests is bounded."""

import pytest

from cnnkit.server.memory_budget import MemoryBudget
from cnnkit.server.status_error import StatusError


def test_a_request_that_does_not_fit_is_refused_and_the_others_keep_their_memory():
    budget = MemoryBudget(100)
    with budget.open() as first:
        first.add(60)
        with pytest.raises(StatusError) as caught, budget.open() as second:
            second.add(30)
            second.add(11)
        assert (caught.value.code.name, caught.value.details) == (
            "RESOURCE_EXHAUSTED",
            "Server memory for requests is full",
        )
        assert budget.used == 60
        first.add(40)
    assert budget.used == 0
