"""A fitted rule of choice finds what tells right answers from wrong ones."""

from collections.abc import Sequence
from random import Random

import pytest
import torch

from stepback_core.schemas import Outcome
from stepback_core.tasks import CountdownProblem
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import Finish, Sample
from stepback_server.search.tree import Branch, State
from tests.benchmarks.fitted_choice import Choice, FittedRule, by, choice
from tests.conftest import CHECKPOINT


def _drawn(rng: Random) -> Choice:
    """Three answers; the right one has the greatest sum of the first column and half the second."""
    rows = [[rng.gauss(0, 1), rng.gauss(0, 1), rng.gauss(0, 1)] for _ in range(3)]
    told = [first + second / 2 for first, second, _ in rows]
    return Choice(torch.tensor(rows), torch.tensor([each == max(told) for each in told]))


def test_it_weighs_what_decides_and_no_more() -> None:
    rng = Random(1)
    rule = FittedRule([_drawn(rng) for _ in range(400)])
    first, second, noise = rule.weights.tolist()
    assert first > second > 5 * abs(noise)
    asked = [_drawn(rng) for _ in range(200)]
    assert sum(map(rule.chooses_right, asked)) > 190 > sum(by((0,), each) for each in asked)


def test_it_says_so_where_nothing_can_be_fitted() -> None:
    one = Choice(torch.tensor([[1.0, 2.0]]), torch.tensor([True]))
    with pytest.raises(ValueError, match="both right and wrong"):
        FittedRule([one])


def test_a_problem_without_an_answer_is_not_solved() -> None:
    rule = FittedRule([_drawn(Random(2)) for _ in range(20)])
    nothing = Choice(torch.tensor([]), torch.tensor([], dtype=torch.bool))
    assert not rule.chooses_right(nothing) and not by((0,), nothing)


def test_equal_values_leave_the_choice_to_the_next_column() -> None:
    tie = Choice(torch.tensor([[1.0, 0.0], [1.0, 2.0]]), torch.tensor([False, True]))
    assert by((0, 1), tie) and not by((0,), tie)


def _sampled(
    checkpoint: Checkpoint, steps: Sequence[str], logprob: float, p_marker: float, *, ends: bool
) -> Branch:
    """A sample of these steps, each token and each doubt after a step as given."""
    tokens = checkpoint.codec.tokens
    written = [token for step in steps for token in checkpoint.codec.encode_step(step)]
    ids = (*written, tokens.end_id if ends else tokens.marker_id)
    marker = torch.tensor(p_marker).log().item()
    logprobs = (logprob,) * len(ids)
    sample = Sample(index=0, ids=ids, logprobs=logprobs, finish=Finish.STOP, cached_tokens=0)
    outcome = Outcome.ANSWER if ends else Outcome.BACKTRACK
    return Branch(0, State(), sample, outcome, marker_logprobs=(marker,) * len(ids))


def test_equal_answers_are_one_choice() -> None:
    checkpoint = Checkpoint.open(CHECKPOINT)
    problem = CountdownProblem(numbers=[1, 2, 3, 4], target=24)
    right = ["2*3=6", "6*4=24", "24*1=24"]
    wrong = ["2*3=6", "6*4=24", "24+1=25"]
    found = choice(
        checkpoint,
        problem,
        [
            _sampled(checkpoint, right, -0.5, 0.1, ends=True),
            _sampled(checkpoint, right, -0.2, 0.3, ends=True),
            _sampled(checkpoint, wrong, -0.1, 0.5, ends=True),
            _sampled(checkpoint, right[:1], -0.3, 0.2, ends=False),
        ],
    )
    assert found.right.tolist() == [True, False]
    assert found.known[:, 0].tolist() == pytest.approx([-0.2, -0.1])  # the likeliest of equal ones
    sure = found.known[:, 1].exp().tolist()
    assert sure == pytest.approx([0.9**3, 0.5**3], rel=1e-4)  # the surest of equal ones
    assert found.known[:, -3].exp().tolist() == pytest.approx([2, 1])  # votes
    assert found.known[:, -2].exp().tolist() == pytest.approx([4, 4])  # begin alike
    assert found.known[:, -1].tolist() == pytest.approx([0.25, 0.25])  # of which end in the marker
