"""Errors that another process raised: a solver's in a pool, a checker's in its worker."""

import pickle

import pytest

from stepback_core.isolation.failures import CheckerFailure, FailureKind
from stepback_server.engine.base import EngineUnavailable
from stepback_server.errors import ApiError
from stepback_server.jobs.job import NotNow
from stepback_server.scorers.messages import ScorerError


@pytest.mark.parametrize(
    "error",
    [
        ApiError("queue_full", "wait", param="p", retry_after=3),
        ApiError("invalid_value", "no", headers={"X-A": "b"}, status=404),
        CheckerFailure(FailureKind.CRASHED, "it  ended", [1, 2]),
        EngineUnavailable("10.0.0.1 is gone", public="lost", retry_after=9, begun=False),
        NotNow(2.5, is_loss=True),
        ScorerError("slow", "no answer in 2 s"),
    ],
)
def test_an_error_is_the_same_in_another_process(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error)
    assert vars(again) == vars(error)
