"""Leave a search at its first verified answer: `python client/examples/stream_async.py [URL]`.

(A controller does so itself with `select="verified"`; here the caller decides what is good enough.)
"""

import asyncio
import sys

from stepback_client import Answer, AsyncClient, CandidateEvent, CountdownProblem


async def first_verified(url: str) -> Answer | None:
    problem = CountdownProblem(numbers=[4, 16, 25, 82], target=95)
    async with (
        AsyncClient(url) as client,
        # Leaving this context closes the connection, and the server ends the search.
        client.stream(problem, breadth=64, select="perplexity") as events,
    ):
        async for event in events:
            if isinstance(event, CandidateEvent) and event.answer.verified:
                return event.answer
    return None


answer = asyncio.run(first_verified(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"))
print(f"solved: {answer.steps}" if answer else "unsolved")
