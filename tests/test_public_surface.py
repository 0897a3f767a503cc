"""The names that users may rely on. A change here is a change of the interface."""

import stepback_client


def test_the_client_exports_exactly_this() -> None:
    assert sorted(stepback_client.__all__) == [
        "Answer",
        "ApiError",
        "AsyncClient",
        "AuthenticationError",
        "BacktrackEvent",
        "CandidateEvent",
        "Client",
        "CountdownProblem",
        "InvalidRequest",
        "MazeProblem",
        "NotFound",
        "Overloaded",
        "ProgressEvent",
        "ResultEvent",
        "Retry",
        "Select",
        "SolveResult",
        "StartedEvent",
        "Status",
        "StepEvent",
        "StepbackError",
        "StopReason",
        "Strategy",
        "StruckStep",
        "SudokuProblem",
        "TransportError",
        "TreeNode",
        "Unavailable",
        "Usage",
        "UsageEvent",
    ]
    for name in stepback_client.__all__:
        assert hasattr(stepback_client, name)
