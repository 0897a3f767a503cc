"""The account of a search's CPU time: which part a sample belongs to."""

from tests.benchmarks.http_cost import by_function, by_part, read_stacks, report

MAIN = "main (/y/stepback_client/cli.py:1);"
RAW = f"""\
{MAIN}run (/x/asyncio/events.py:2);step (/y/stepback_server/search/loop.py:9) 6
{MAIN}step (/y/stepback_server/search/loop.py:8);dumps (/z/json/enc.py:3) 2
{MAIN}add (/x/vllm/v1/engine/async_llm.py:4) 2
{MAIN}start (/q/other.py:1) 2
{MAIN}select (/usr/selectors.py:5) 9
thread (/q/other.py:1) 9
"""


def test_a_sample_belongs_to_the_innermost_frame_that_has_a_part() -> None:
    stacks = read_stacks(RAW)
    assert by_part(stacks) == {"the search": 8, "vLLM's front end": 2, "the rest": 2}
    assert by_function(stacks)["step (/y/stepback_server/search/loop.py"] == 8


def test_shares_are_of_the_controllers_time_and_times_of_a_search() -> None:
    lines = report(100, {"controller": 1.2, "client": 0.5}, read_stacks(RAW)).splitlines()
    assert "| controller | 12.00 |" in lines and "| client | 5.00 |" in lines
    assert "| the search | 67 % | 8.00 |" in lines
    assert lines[-2].startswith("| `main`, stepback_client/cli.py | 100 % |")
    assert lines[-1] == "| `step`, stepback_server/search/loop.py | 67 % | 8.00 |"
