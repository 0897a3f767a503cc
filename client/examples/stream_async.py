"""Leave a search at its third answer: `python client/examples/stream_async.py [URL]`."""

import asyncio
import sys

from stepback_client import Answer, AsyncClient, CandidateEvent, CountdownProblem


async def first_answers(url: str, count: int) -> list[Answer]:
    problem = CountdownProblem(numbers=[4, 16, 25, 82], target=95)
    answers: list[Answer] = []
    async with (
        AsyncClient(url) as client,
        # Leaving this context closes the connection, and the server ends the search.
        client.stream(problem, breadth=64, select="perplexity") as events,
    ):
        async for event in events:
            if isinstance(event, CandidateEvent):
                answers.append(event.answer)
            if len(answers) == count:
                break
    return answers


url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
for answer in asyncio.run(first_answers(url, 3)):
    print("solved" if answer.verified else answer.reason, answer.steps)
