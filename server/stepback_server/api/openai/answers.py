"""From results of `/solve` to OpenAI's answers. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from stepback_core.schemas import Answer, SolveResult
from stepback_core.schemas.openai_answers import (
    AnswerMessage,
    ChatChoice,
    ChatCompletion,
    Completion,
    CompletionChoice,
    CompletionDetails,
    FinishReason,
    OpenAiUsage,
    PromptDetails,
    SearchReport,
)
from stepback_server.api.openai.reasoning import lines_of_tree
from stepback_server.api.openai.translation import Wanted

_FINGERPRINT = 12


@dataclass(frozen=True, slots=True)
class Envelope:
    """Fields that every answer and chunk of a call share."""

    id: str
    created: int
    model: str
    system_fingerprint: str

    @classmethod
    def of(cls, id: str, created: int, wanted: Wanted, digest: str | None) -> "Envelope":
        """The envelope of a call under the weights of a digest."""
        return cls(id, created, wanted.model, (digest or "")[:_FINGERPRINT])


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer as a caller gets it: its text up to a stop, and why it ends."""

    text: str
    finish_reason: FinishReason

    @classmethod
    def of(cls, answer: Answer | None, stops: Sequence[str]) -> "Choice":
        """The choice of an answer, or of none."""
        if answer is None:
            return cls("", "length")
        ends = [at for stop in stops if (at := answer.text.find(stop)) >= 0]
        return cls(answer.text[: min(ends, default=None)], "stop")


def choices_of(result: SolveResult, wanted: Wanted) -> list[Choice]:
    """The distinct answers, best first: at least one choice, at most as many as are wanted."""
    answers = result.candidates[: wanted.choices] or [None]
    return [Choice.of(answer, wanted.stops) for answer in answers]


def chat_completion(result: SolveResult, wanted: Wanted, envelope: Envelope) -> ChatCompletion:
    """The answer of a chat request."""
    reasoning = None
    if wanted.reasoning and result.tree is not None:
        reasoning = "\n".join(lines_of_tree(result.tree))
    return ChatCompletion(
        id=envelope.id,
        created=envelope.created,
        model=envelope.model,
        system_fingerprint=envelope.system_fingerprint,
        choices=[
            ChatChoice(
                index=index,
                message=AnswerMessage(
                    content=choice.text,
                    reasoning=reasoning if index == 0 else None,
                    reasoning_content=reasoning if index == 0 else None,
                ),
                finish_reason=choice.finish_reason,
            )
            for index, choice in enumerate(choices_of(result, wanted))
        ],
        usage=usage_of([result]),
        stepback=SearchReport.of(result, tree=wanted.tree),
    )


def completion(results: Sequence[SolveResult], wanted: Wanted, envelope: Envelope) -> Completion:
    """The answer of a completion request: choices in the order of the prompts."""
    reports = [SearchReport.of(result, tree=wanted.tree) for result in results]
    return Completion(
        id=envelope.id,
        created=envelope.created,
        model=envelope.model,
        system_fingerprint=envelope.system_fingerprint,
        choices=[
            choice
            for place, result in enumerate(results)
            for choice in completion_choices(place, result, wanted)
        ],
        usage=usage_of(results),
        stepback=reports[0] if len(reports) == 1 else reports,
    )


def completion_choices(place: int, result: SolveResult, wanted: Wanted) -> list[CompletionChoice]:
    """The choices of the prompt at a place."""
    return [
        CompletionChoice(
            index=place * wanted.choices + index,
            text=choice.text,
            finish_reason=choice.finish_reason,
        )
        for index, choice in enumerate(choices_of(result, wanted))
    ]


def usage_of(results: Sequence[SolveResult]) -> OpenAiUsage:
    """The cost of some searches."""
    usages = [result.usage for result in results]
    prompt = sum(usage.prompt_tokens for usage in usages)
    generated = sum(usage.generated_tokens for usage in usages)
    # OpenAI counts cached tokens of the prompt, once; a search reads its prompt many times.
    cached = sum(min(usage.cached_tokens, usage.prompt_tokens) for usage in usages)
    return OpenAiUsage(
        prompt_tokens=prompt,
        completion_tokens=generated,
        total_tokens=prompt + generated,
        completion_tokens_details=CompletionDetails(
            reasoning_tokens=sum(usage.discarded_tokens for usage in usages)
        ),
        prompt_tokens_details=PromptDetails(cached_tokens=cached),
    )
