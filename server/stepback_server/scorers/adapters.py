"""The wire formats of scorers: one body for a batch of candidates, and its answer read. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from stepback_server.scorers.config import (
    Entry,
    JudgeEntry,
    StepbackEntry,
    VllmClassifyEntry,
    VllmScoreEntry,
)
from stepback_server.scorers.messages import (
    Candidate,
    Opinion,
    Question,
    Score,
    body_of,
    malformed,
    read_as,
    read_verdicts,
    shortened,
)


class Adapter(Protocol):
    """One wire format."""

    def body(self, question: Question, candidates: Sequence[Candidate]) -> dict[str, Any]:
        """Write one call."""
        ...

    def read(self, candidates: Sequence[Candidate], content: bytes) -> dict[str, Opinion]:
        """Read its answer: an opinion for each id, as far as there is one. Raises ScorerError."""
        ...


class Native:
    """Stepback's own protocol."""

    def body(self, question: Question, candidates: Sequence[Candidate]) -> dict[str, Any]:
        return body_of(question, candidates)

    def read(self, candidates: Sequence[Candidate], content: bytes) -> dict[str, Opinion]:
        return read_verdicts(content)


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _ScoreData(_Reply):
    index: int
    score: Score


class _Scores(_Reply):
    data: list[_ScoreData]


@dataclass(frozen=True, slots=True)
class VllmScore:
    """vLLM's `/score`: the prompt against each text."""

    entry: VllmScoreEntry

    def body(self, question: Question, candidates: Sequence[Candidate]) -> dict[str, Any]:
        texts = [candidate.text for candidate in candidates]
        return {"model": self.entry.model, "text_1": question.prompt, "text_2": texts}

    def read(self, candidates: Sequence[Candidate], content: bytes) -> dict[str, Opinion]:
        # By index: the answer's order is not promised.
        scores = {each.index: each.score for each in read_as(_Scores, content).data}
        return _by_place(candidates, scores)


class _ClassData(_Reply):
    index: int
    probs: list[Score] = Field(min_length=1)


class _Classes(_Reply):
    data: list[_ClassData]


@dataclass(frozen=True, slots=True)
class VllmClassify:
    """vLLM's `/classify`: the probability of one class."""

    entry: VllmClassifyEntry

    def body(self, question: Question, candidates: Sequence[Candidate]) -> dict[str, Any]:
        texts = [
            filled(self.entry.template, {"prompt": question.prompt, "answer": candidate.text})
            for candidate in candidates
        ]
        return {"model": self.entry.model, "input": texts}

    def read(self, candidates: Sequence[Candidate], content: bytes) -> dict[str, Opinion]:
        data, label = read_as(_Classes, content).data, self.entry.label
        # A negative label counts from the last class, which every answer has.
        if any(label >= len(each.probs) for each in data):
            raise malformed(f"data.0.probs: there is no class {label}")
        return _by_place(candidates, {each.index: each.probs[label] for each in data})


class _Message(_Reply):
    content: str | None = None


class _Choice(_Reply):
    message: _Message


class _Chat(_Reply):
    choices: list[_Choice] = Field(min_length=1)


class _Grade(_Reply):
    score: Score
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Judge:
    """A chat model, at temperature 0; one candidate a call."""

    entry: JudgeEntry

    def body(self, question: Question, candidates: Sequence[Candidate]) -> dict[str, Any]:
        (candidate,) = candidates
        graded: dict[str, Any] = {"problem": question.prompt, "answer": candidate.text}
        if not candidate.final:
            graded["unfinished"] = True
        return {
            "model": self.entry.model,
            # The same answer should get the same grade.
            "temperature": 0,
            "max_tokens": self.entry.max_tokens,
            "messages": [
                {"role": "system", "content": self.entry.instructions},
                # As JSON, so that an answer cannot pretend to be another message.
                {"role": "user", "content": json.dumps(graded, ensure_ascii=False)},
            ],
        }

    def read(self, candidates: Sequence[Candidate], content: bytes) -> dict[str, Opinion]:
        (candidate,) = candidates
        text = read_as(_Chat, content).choices[0].message.content or ""
        grade = read_as(_Grade, _last_object(text).encode())
        return {candidate.id: Opinion(grade.score, reason=shortened(grade.reason))}


def adapter_of(entry: Entry) -> Adapter:
    """Return the wire format of a kind."""
    match entry:
        case StepbackEntry():
            return Native()
        case VllmScoreEntry():
            return VllmScore(entry)
        case VllmClassifyEntry():
            return VllmClassify(entry)
        case JudgeEntry():
            return Judge(entry)


def filled(template: str, texts: Mapping[str, str]) -> str:
    """Fill a template in one pass: what looks like a field within a text stays as it is."""
    return re.sub(r"\{(prompt|answer)\}", lambda field: texts[field[1]], template)


def _last_object(text: str) -> str:
    """The last JSON object of a reply: a judge may think aloud first. Raises ScorerError."""
    # From the last brace backwards: an object may hold others, and text may follow.
    end = text.rfind("}") + 1
    begin = text.rfind("{", 0, end)
    while begin >= 0:
        try:
            json.loads(text[begin:end])
        except ValueError:
            begin = text.rfind("{", 0, begin)
        else:
            return text[begin:end]
    raise malformed("the reply has no JSON object")


def _by_place(candidates: Sequence[Candidate], scores: Mapping[int, float]) -> dict[str, Opinion]:
    return {
        candidate.id: Opinion(scores[place])
        for place, candidate in enumerate(candidates)
        if place in scores
    }
