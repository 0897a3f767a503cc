"""Plans: the same problems every time, of the right split, each search once."""

import pytest
from pydantic import ValidationError

from stepback_core.schemas import Select, Strategy
from stepback_training.evaluate.plan import Plan, Setting, settings_of
from stepback_training.evaluate.scoring import Rule
from stepback_training.generators import Split
from stepback_training.sampling.statistics import wilson
from tests.training.evaluate.made import TASK, plan

SEARCHED = (Strategy.GREEDY, Strategy.BEST_OF_N, Strategy.SELF_BACKTRACKING, Strategy.BEST_FIRST)


def names(*arguments: object) -> list[str]:
    return [setting.name for setting in settings_of(*arguments)]  # pyright: ignore


def test_every_search_is_asked_once() -> None:
    assert names(SEARCHED, [4, 8], [0, 1], [*Select], [None]) == [
        "greedy",
        "best_of_n N=4",
        "best_of_n N=4 until verified",
        "best_of_n N=8",
        "best_of_n N=8 until verified",
        "self_backtracking N=4 b=1",
        "self_backtracking N=4 b=1 until verified",
        "self_backtracking N=8 b=1",
        "self_backtracking N=8 b=1 until verified",
        "best_first N=4",
        "best_first N=4 until verified",
        "best_first N=8",
        "best_first N=8 until verified",
    ]


def test_rules_that_look_at_every_candidate_share_a_search() -> None:
    both = [Select.PERPLEXITY, Select.VOTE]
    assert names([Strategy.BEST_OF_N], [4], [0], both, [None]) == ["best_of_n N=4"]
    verified = names([Strategy.BEST_OF_N], [4], [0], [Select.VERIFIED], [None, 50])
    assert verified == ["best_of_n N=4 until verified", "best_of_n N=4 tokens<=50 until verified"]


def test_backtracking_without_rounds_is_best_of_n() -> None:
    found = settings_of([Strategy.SELF_BACKTRACKING], [4], [0], [Select.VOTE], [None])
    assert found == (Setting(strategy=Strategy.BEST_OF_N, breadth=4),)


def test_nothing_votes_on_what_writes_nothing_twice() -> None:
    assert Rule.VOTE not in Setting(strategy=Strategy.BEST_FIRST, breadth=4).rules


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"strategy": "self_backtracking", "breadth": 256, "backtracks": 1}, "1024"),
        ({"strategy": "best_of_n", "breadth": 2000}, "breadth"),
        ({"strategy": "best_of_n", "breadth": 2, "budget_tokens": 0}, "tokens"),
    ],
)
def test_a_setting_that_no_server_takes_is_refused(fields: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Setting.model_validate(fields)


def test_the_problems_are_held_out_and_the_same_each_time() -> None:
    made = plan(Setting(strategy=Strategy.GREEDY))
    asked = made.drawn()
    again = plan(Setting(strategy=Strategy.GREEDY)).drawn()
    assert [(q.split, q.number, q.problem) for q in asked] == [
        (q.split, q.number, q.problem) for q in again
    ]
    assert [TASK.split(each.problem) for each in asked] == [each.split for each in asked]
    assert Split.TRAIN not in {each.split for each in asked}
    assert len({each.seed(1) for each in asked}) == len(asked)
    other = Plan.model_validate(made.model_dump() | {"seed": 2}).drawn()
    assert not {each.seed(1) for each in asked} & {each.seed(2) for each in other}
    assert [each.problem for each in asked] != [each.problem for each in other]


def test_wilson_is_what_the_books_say() -> None:
    # 81 of 263: Newcombe 1998, table I.
    assert wilson(81, 263) == pytest.approx((25.53, 36.62), abs=0.005)
    assert wilson(0, 10)[0] == 0 and wilson(10, 10)[1] == pytest.approx(100)
    assert wilson(0, 20)[1] == pytest.approx(16.11, abs=0.005)
    with pytest.raises(ValueError, match="no share"):
        wilson(0, 0)
