"""Output of the command for a result and for events, without a server."""

from stepback_client.live_view import Watched, plain_lines
from stepback_client.summary import describe
from stepback_core.events import CandidateEvent, StepEvent
from stepback_core.schemas import (
    Answer,
    Select,
    SolveResult,
    Status,
    StopReason,
    Strategy,
    Usage,
)

ANSWER = Answer(
    text="1+2=3", steps=["1+2=3"], score=-0.1, verified=True, confidence=0.87, weight=0.87
)
USAGE = Usage(
    prompt_tokens=5,
    generated_tokens=9,
    discarded_tokens=0,
    cached_tokens=0,
    engine_requests=1,
    backtracks=0,
    seconds_queued=0,
    seconds_searching=0.5,
)
RESULT = SolveResult(
    id="s-1",
    status=Status.SOLVED,
    stop_reason=StopReason.SOLVED,
    strategy=Strategy.GREEDY,
    select=Select.PERPLEXITY,
    model="m",
    answer=ANSWER,
    candidates=[ANSWER],
    usage=USAGE,
    tree=None,
    warning="it was trained for four numbers",
)


def test_a_result_shows_its_confidence_and_its_warning() -> None:
    *_, cost, warning = describe(RESULT).splitlines()
    assert cost.startswith("solved: 9 tokens") and cost.endswith("confidence 0.87")
    assert warning == "warning: it was trained for four numbers"
    without = RESULT.model_copy(update={"warning": None, "answer": None})
    assert describe(without).endswith("0.50 s")


def test_a_step_of_several_lines_is_shown_as_lines_and_obeyed_by_no_terminal() -> None:
    answer = ANSWER.model_copy(update={"steps": ["def f():\n    return 1", "\x1b[2Jf()"]})
    shown = describe(RESULT.model_copy(update={"answer": answer})).splitlines()
    assert shown[:3] == ["  def f():", "      return 1", "  \N{REPLACEMENT CHARACTER}[2Jf()"]


def test_plain_lines_say_how_likely_a_step_is_taken_back() -> None:
    step = StepEvent(branch=1, parent=0, index=0, text="1+2=3", p_marker=0.13)
    end = CandidateEvent(branch=1, parent=0, kept_steps=0, answer=ANSWER)
    assert list(plain_lines([step, end], Watched())) == ["✓ 1: 1+2=3 (13%)"]
