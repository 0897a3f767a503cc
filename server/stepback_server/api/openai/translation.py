"""Translation of chat and completion requests into requests of `/solve`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import ValidationError

from stepback_core.schemas import SolveRequest, Strategy
from stepback_core.schemas.openai import SEARCH_FIELDS, ChatRequest, CompletionRequest
from stepback_core.trace import TraceCodec
from stepback_server.api.openai.parameters import count_unknown, unsupported
from stepback_server.api.openai.prompts import Problem, problem_of, prompts_of, text_of
from stepback_server.checkpoint import Checkpoint
from stepback_server.errors import ApiError, invalid
from stepback_server.settings import Settings

_MOST_STOPS = 4
_OF_COMPLETIONS: Mapping[str, tuple[Any, ...]] = {"prompt": ()}
_OF_CHATS: Mapping[str, tuple[Any, ...]] = {
    "messages": (),
    "max_completion_tokens": (),
    "reasoning_effort": (),
    "include_reasoning": (False,),
}
_EFFORT = {"low": 1, "medium": 4, "high": 16}
# Full answers that the usual budget has tokens for, as it is in `/solve`.
_ANSWERS = 32
# OpenAI's SDK gives up after 600 s, and then pays for the same search again.
_CLIENT_SECONDS = 570.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions:
    """Form in which a caller wants an answer."""

    model: str
    """The name to answer with."""
    choices: int
    stops: tuple[str, ...]
    reasoning: bool
    tree: bool
    usage: bool
    """End a stream with one more chunk, for the usage."""
    logprobs: TraceCodec | None
    """The decoder of single tokens, for their log-probabilities."""


@dataclass(frozen=True, slots=True)
class Translated:
    """The searches of one call."""

    searches: list[SolveRequest]
    wanted: AnswerOptions
    unknown_fields: int


class Translator:
    """Translates for one checkpoint under one set of limits."""

    def __init__(self, checkpoint: Checkpoint, settings: Settings) -> None:
        self._checkpoint = checkpoint
        self._settings = settings

    def chat(self, body: ChatRequest, budget_header: int | None) -> Translated:
        """Translate a chat request. Raises ApiError."""
        text, unknown = text_of(body.messages)
        unknown += count_unknown(body.extra, _OF_COMPLETIONS)
        fields = self._search_fields(body, budget_header)
        problem = problem_of(text, _task(fields), self._tasks, "messages")
        longest = body.max_completion_tokens or body.max_tokens
        if body.max_tokens is not None and body.max_tokens != longest:
            raise _invalid("max_tokens", "it differs from max_completion_tokens; give one of them")
        reasoning = body.include_reasoning is not False
        search = self._search(body, problem, fields, longest, body.reasoning_effort, reasoning)
        wanted = self._wanted(body, fields, reasoning=reasoning, logprobs=bool(body.logprobs))
        return Translated([search], wanted, unknown)

    def completion(self, body: CompletionRequest, budget_header: int | None) -> Translated:
        """Translate a completion request, a search for each prompt. Raises ApiError."""
        unknown = count_unknown(body.extra, _OF_CHATS)
        if body.logprobs:
            raise unsupported("logprobs", "a search keeps no alternatives; 0 is of its own tokens")
        fields = self._search_fields(body, budget_header)
        prompts = prompts_of(body.prompt, self._checkpoint.codec, self._settings.max_batch)
        searches = [
            self._search(
                body,
                problem_of(prompt, _task(fields), self._tasks, "prompt"),
                fields,
                body.max_tokens,
            )
            for prompt in prompts
        ]
        wanted = self._wanted(body, fields, reasoning=False, logprobs=body.logprobs == 0)
        return Translated(searches, wanted, unknown)

    @property
    def _tasks(self) -> list[str]:
        return self._checkpoint.manifest.tasks

    def _search_fields(
        self, body: ChatRequest | CompletionRequest, budget_header: int | None
    ) -> dict[str, Any]:
        """The fields of `/solve` that a call gives, each in one of the places for them."""
        top = {
            name: value
            for name, value in body.extra.items()
            if name in SEARCH_FIELDS and value is not None
        }
        nested = {name: value for name, value in (body.stepback or {}).items() if value is not None}
        for name in nested:
            if name not in SEARCH_FIELDS:
                raise ApiError(
                    "extra_field", f"stepback.{name}: there is no such field", param="stepback"
                )
            if name in top:
                raise _invalid(name, "it is given at the top level and in `stepback`; give it once")
        fields = top | nested
        if budget_header is not None:
            budget = _budget(fields)
            if "tokens" in budget:
                raise _invalid(
                    "budget.tokens", "it is given in X-Stepback-Budget-Tokens too; give it once"
                )
            fields["budget"] = {**budget, "tokens": budget_header}
        self._add_strategy_of_model(body.model, fields)
        return fields

    def _add_strategy_of_model(self, model: str | None, fields: dict[str, Any]) -> None:
        """Take the strategy from a name such as `multitask-10m:greedy`."""
        served = self._checkpoint.manifest.name
        if model is None or model == served:
            return
        name, _, strategy = model.rpartition(":")
        if name != served or strategy not in [each.value for each in Strategy]:
            raise ApiError(
                "model_not_found",
                f"model: this server has {served!r}, alone or as in {served + ':greedy'!r}; or "
                "leave it out.",
                param="model",
            )
        if fields.setdefault("strategy", strategy) != strategy:
            raise _invalid("strategy", f"the model {model!r} names another one; give it once")

    def _search(
        self,
        body: ChatRequest | CompletionRequest,
        problem: Problem,
        fields: Mapping[str, Any],
        longest_answer: int | None,
        effort: str | None = None,
        reasoning: bool = False,
    ) -> SolveRequest:
        given = {
            **fields,
            **problem,
            "candidates": body.n or 1,
            "logprobs": body.logprobs is not None and body.logprobs is not False,
            "tree": fields.get("tree", False) or reasoning,
            "temperature": body.temperature,
            "seed": None if body.seed is None else body.seed % 2**31,
            "budget": self._limited(fields, longest_answer, bool(body.stream)),
        }
        self._apply_effort(effort, given)
        try:
            return SolveRequest.model_validate(
                {name: value for name, value in given.items() if value is not None}
            )
        except ValidationError as error:
            raise invalid(error.errors()) from error

    def _limited(
        self, fields: Mapping[str, Any], longest_answer: int | None, stream: bool
    ) -> dict[str, Any]:
        budget = _budget(fields)
        if longest_answer is not None:
            if "answer_tokens" in budget:
                raise _invalid(
                    "budget.answer_tokens", "it is the same as max_tokens; give one of them"
                )
            budget["answer_tokens"] = longest_answer
        if not stream and "seconds" not in budget:
            patience = max(1.0, _CLIENT_SECONDS - self._settings.max_queue_seconds)
            budget["seconds"] = min(self._settings.budget_seconds, patience)
        return budget

    def _apply_effort(self, effort: str | None, given: dict[str, Any]) -> None:
        if effort is None:
            return
        if effort == "none":
            if given.setdefault("strategy", Strategy.GREEDY.value) != Strategy.GREEDY.value:
                raise _invalid("reasoning_effort", "'none' is greedy, and `strategy` is another")
            return
        budget = given["budget"]
        if "tokens" in budget:
            raise _invalid("reasoning_effort", "it sets the budget; give it or `budget.tokens`")
        answer = self._checkpoint.longest_answer(given.get("task"))
        usual = _ANSWERS * min(answer, budget.get("answer_tokens") or answer)
        budget["tokens"] = min(_EFFORT[effort] * usual, self._settings.budget_tokens)

    def _wanted(
        self,
        body: ChatRequest | CompletionRequest,
        fields: Mapping[str, Any],
        *,
        reasoning: bool,
        logprobs: bool,
    ) -> AnswerOptions:
        best_of = body.extra.get("best_of")
        if best_of is not None and best_of != (body.n or 1):
            raise unsupported("best_of", "it must be n, or be left out: `breadth` is how many")
        options = body.stream_options
        if options is not None and not body.stream:
            raise _invalid("stream_options", "it needs `stream`")
        return AnswerOptions(
            model=body.model or self._checkpoint.manifest.name,
            choices=body.n or 1,
            stops=_stops(body.stop),
            reasoning=reasoning,
            tree=fields.get("tree") is True,
            usage=options is not None and options.include_usage is True,
            logprobs=self._checkpoint.codec if logprobs else None,
        )


def _task(fields: Mapping[str, Any]) -> str | None:
    task = fields.get("task")
    if task is not None and not isinstance(task, str):
        raise ApiError("wrong_type", "task: give the name of a task", param="task")
    return task


def _budget(fields: Mapping[str, Any]) -> dict[str, Any]:
    budget: object = fields.get("budget") or {}
    if not isinstance(budget, dict):
        raise ApiError("wrong_type", "budget: give an object", param="budget")
    given = cast("dict[str, Any]", budget)
    return {name: value for name, value in given.items() if value is not None}


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > _MOST_STOPS:
        raise ApiError("out_of_range", f"stop: give at most {_MOST_STOPS} texts", param="stop")
    if "" in stops:
        raise _invalid("stop", "a text must not be empty")
    return stops


def _invalid(param: str, message: str) -> ApiError:
    return ApiError("invalid_value", f"{param}: {message}", param=param)
