"""Translation of `/solve` results into OpenAI's answers. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from stepback_core.schemas import Answer, SolveResult
from stepback_core.schemas.openai_answers import (
    AnswerMessage,
    ChatChoice,
    ChatCompletion,
    ChatLogprobs,
    Completion,
    CompletionChoice,
    CompletionDetails,
    CompletionLogprobs,
    FinishReason,
    OpenAiUsage,
    PromptDetails,
    SearchReport,
)
from stepback_server.api.openai.logprobs import (
    AnswerToken,
    chat_logprobs,
    completion_logprobs,
    tokens_of,
)
from stepback_server.api.openai.reasoning import lines_of_tree
from stepback_server.api.openai.translation import AnswerOptions

_FINGERPRINT = 12


@dataclass(frozen=True, slots=True)
class Envelope:
    """Fields that every answer and chunk of a call share."""

    id: str
    created: int
    model: str
    system_fingerprint: str

    @classmethod
    def of(cls, id: str, created: int, wanted: AnswerOptions, digest: str | None) -> "Envelope":
        """The envelope of a call under the weights of a digest."""
        return cls(id, created, wanted.model, (digest or "")[:_FINGERPRINT])


@dataclass(frozen=True, slots=True)
class Choice:
    """An answer as a caller gets it: its text up to a stop, and why it ends."""

    text: str
    finish_reason: FinishReason
    tokens: list[AnswerToken] | None = None
    """Given only on request."""

    @classmethod
    def of(cls, answer: Answer | None, wanted: AnswerOptions) -> "Choice":
        """The choice of an answer, or of none."""
        codec = wanted.logprobs
        if answer is None:
            # No answer within the budget is what "length" means to these clients.
            return cls("", "length", None if codec is None else [])
        ends = [at for stop in wanted.stops if (at := answer.text.find(stop)) >= 0]
        # Stops are cut here, not in the engine: a search must see whole steps.
        text = answer.text[: min(ends, default=None)]
        return cls(text, "stop", None if codec is None else tokens_of(answer, text, codec))

    @property
    def chat_logprobs(self) -> ChatLogprobs | None:
        """The tokens in the form of a chat."""
        return None if self.tokens is None else chat_logprobs(self.tokens)

    @property
    def completion_logprobs(self) -> CompletionLogprobs | None:
        """The tokens in the form of a completion."""
        return None if self.tokens is None else completion_logprobs(self.tokens)


def choices_of(result: SolveResult, wanted: AnswerOptions) -> list[Choice]:
    """The distinct answers, best first: at least one choice, at most as many as are wanted."""
    # Never an empty list, whose first entry every client reads.
    answers = result.candidates[: wanted.choices] or [None]
    return [Choice.of(answer, wanted) for answer in answers]


def chat_completion(
    result: SolveResult, wanted: AnswerOptions, envelope: Envelope
) -> ChatCompletion:
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
                    # The search is one, whatever the number of choices. Clients read one name or
                    # the other.
                    reasoning=reasoning if index == 0 else None,
                    reasoning_content=reasoning if index == 0 else None,
                ),
                finish_reason=choice.finish_reason,
                logprobs=choice.chat_logprobs,
            )
            for index, choice in enumerate(choices_of(result, wanted))
        ],
        usage=usage_of([result]),
        stepback=SearchReport.of(result, tree=wanted.tree),
    )


def completion(
    results: Sequence[SolveResult], wanted: AnswerOptions, envelope: Envelope
) -> Completion:
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
            for choice in completion_choices(place, result, wanted, alone=len(results) == 1)
        ],
        usage=usage_of(results),
        stepback=reports[0] if len(reports) == 1 else reports,
    )


def completion_choices(
    place: int, result: SolveResult, wanted: AnswerOptions, *, alone: bool
) -> list[CompletionChoice]:
    """The choices of the prompt at a place. Where it is not alone there are n of them, since
    clients count them off: what is missing is empty."""
    choices = choices_of(result, wanted)
    if not alone:
        choices += [Choice.of(None, wanted)] * (wanted.choices - len(choices))
    return [
        CompletionChoice(
            index=place * wanted.choices + index,
            text=choice.text,
            finish_reason=choice.finish_reason,
            logprobs=choice.completion_logprobs,
        )
        for index, choice in enumerate(choices)
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
