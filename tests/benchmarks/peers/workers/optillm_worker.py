"""OptiLLM's approaches over a vLLM server. None of them takes a checker."""

import logging
from concurrent.futures import ThreadPoolExecutor

from loop import CHECKER, Answer, Job, reason, serve  # pyright: ignore
from openai import OpenAI
from optillm.bon import best_of_n_sampling  # pyright: ignore
from optillm.mcts import chat_with_mcts  # pyright: ignore
from optillm.moa import mixture_of_agents  # pyright: ignore
from optillm.plugins import majority_voting_plugin  # pyright: ignore
from optillm.self_consistency import advanced_self_consistency_approach  # pyright: ignore


def ask(job: Job, client: OpenAI, problem) -> str:
    """The text of the approach; the tokens that it counts itself are left."""
    options, query = job.options, CHECKER.prompt(problem)
    limits = {"max_tokens": options["longest"]}
    given = {"system_prompt": "", "initial_query": query, "client": client, "model": job.model}
    if job.method == "majority_voting":
        voted = limits | {"k": options["n"], "temperature": options["temperature"]}
        return majority_voting_plugin.run(**given, request_config=voted)[0]
    if job.method == "self_consistency":
        return advanced_self_consistency_approach(**given, request_config=limits)[0]
    if job.method == "bon":
        return best_of_n_sampling(**given, n=options["n"], request_config=limits)[0]
    if job.method == "moa":
        return mixture_of_agents(**given, request_config=limits)[0]
    assert job.method == "mcts"
    return chat_with_mcts(**given, request_config=limits)[0]


def solve(job: Job) -> list[Answer]:
    client = OpenAI(base_url=f"{job.url}/v1", api_key="none", timeout=600)

    def one(problem) -> Answer:
        try:
            return ask(job, client, problem), None
        except Exception as error:  # an approach that cannot be run here is a result too
            return None, reason(error)

    with ThreadPoolExecutor(job.in_flight) as threads:
        return list(threads.map(one, job.problems))


if __name__ == "__main__":
    # Its log tells each call and each vote.
    logging.disable(logging.ERROR)
    serve(solve)
