"""Follow one search while it runs: `python client/examples/stream.py [URL]`."""

import sys

from stepback_client import BacktrackEvent, CandidateEvent, Client, CountdownProblem, ResultEvent

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
problem = CountdownProblem(numbers=[4, 16, 25, 82], target=95)

with (
    Client(url) as client,
    client.stream(problem, breadth=16, strategy="self_backtracking") as events,
):
    for event in events:
        match event:
            case BacktrackEvent():
                print(f"{event.branch} takes back {[step.text for step in event.struck]}")
            case CandidateEvent():
                print(f"{event.branch} answers {event.answer.steps}")
            case ResultEvent():
                print(event.result.status)
            case _:  # started, step, usage
                pass
