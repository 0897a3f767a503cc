"""Solve one problem with a running controller: `python client/examples/solve.py [URL]`."""

import sys

from stepback_client import Client, CountdownProblem

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
problem = CountdownProblem(numbers=[4, 16, 25, 82], target=95)

with Client(url) as client:
    result = client.solve(problem, breadth=16)

print(result.status)
for step in result.answer.steps if result.answer else []:
    print(step)
print(f"{result.usage.generated_tokens} tokens in {result.usage.seconds_searching:.2f} s")
