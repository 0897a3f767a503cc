"""Outcomes and failures of a batch of requests; the requests are tested with the evaluation."""

import pytest

from stepback_client import StepbackError
from stepback_core.schemas import StopReason
from stepback_training.sampling.bounded_gather import finished
from tests.training.evaluate.made import result


def test_a_search_that_the_controller_gave_up_is_no_outcome() -> None:
    with pytest.raises(StepbackError, match="stopping"):
        finished(result(stop=StopReason.CANCELLED))
    for stop in set(StopReason) - {StopReason.CANCELLED}:
        assert finished(result(stop=stop)).stop_reason is stop
