"""Reading of text, messages or token ids into the problem of a search."""

import json
from collections.abc import Collection, Sequence
from typing import Any, cast

from pydantic import JsonValue

from stepback_core.schemas.openai import ChatMessage
from stepback_core.tasks.prompt_lines import read_prompt_line
from stepback_core.trace import TraceCodec
from stepback_server.api.openai.parameters import count_unknown_of_message, unsupported
from stepback_server.errors import ApiError

Problem = dict[str, Any]
"""The fields of `/solve` that name a problem: `task` and `problem`, or `prompt`."""


def text_of(messages: Sequence[ChatMessage]) -> tuple[str, int]:
    """Return the one user message's text, and how many unknown fields messages have. Raises
    ApiError for messages that the frame has no place for."""
    unknown = 0
    texts: list[str] = []
    for index, message in enumerate(messages):
        place = f"messages.{index}"
        if message.role != "user":
            # Clients send an empty system text where their user has set none.
            if message.role in ("system", "developer") and not message.content:
                continue
            raise unsupported(
                f"{place}.role",
                f"the prompt frame of this checkpoint has no place for the role {message.role!r}; "
                "send one message of the role 'user'",
            )
        if texts:
            raise unsupported(
                place,
                "the prompt frame of this checkpoint has a place for one turn; send one message of "
                "the role 'user'",
            )
        unknown += count_unknown_of_message(message.extra, place)
        texts.append(_content(message, place))
    if not texts:
        raise _invalid("messages", "there is no message of the role 'user'")
    return texts[0], unknown


def _content(message: ChatMessage, place: str) -> str:
    content = message.content
    if isinstance(content, str):
        return content
    if content is None:
        raise _invalid(f"{place}.content", "give the text of the message")
    parts: list[str] = []
    for index, part in enumerate(content):
        text = part.get("text")
        if part.get("type") != "text" or not isinstance(text, str):
            raise unsupported(f"{place}.content.{index}", "send parts of the type 'text' alone")
        parts.append(text)
    return "\n".join(parts)


def problem_of(text: str, task: str | None, tasks: Collection[str], param: str) -> Problem:
    """Return the problem that a text stands for: of `task` as JSON or as its prompt line, else of
    the task whose prompt line it is, else a bare prompt."""
    # First: a prompt line in a chat client is a problem with a checker.
    found = read_prompt_line(text.strip(), tasks if task is None else {task} & set(tasks))
    if found is not None:
        return {"task": found[0], "problem": found[1].model_dump(mode="json")}
    if task is None:
        if not text:
            raise _invalid(param, "it is empty; send a problem")
        return {"prompt": text}
    try:
        problem = json.loads(text)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        raise _invalid(
            param, f"with `task` it must be a problem of {task!r} as a JSON object, or its prompt"
        )
    return {"task": task, "problem": problem}


def prompts_of(prompt: JsonValue, codec: TraceCodec, most: int) -> list[str]:
    """Return the texts of a completion's prompts: one, or a list, as text or token ids."""
    texts = [
        each if isinstance(each, str) else text_of_ids(each, codec) for each in _listed(prompt)
    ]
    if len(texts) > most:
        raise ApiError(
            "out_of_range", f"prompt: this server allows at most {most} in a call", param="prompt"
        )
    return [_unframed(text, codec) for text in texts]


def _listed(prompt: JsonValue) -> list[str | list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list) and prompt:
        if _are_ids(prompt):
            return [cast("list[int]", prompt)]
        if all(isinstance(each, str) or (each and _are_ids(each)) for each in prompt):
            return cast("list[str | list[int]]", prompt)
    raise ApiError(
        "wrong_type",
        "prompt: give a text, token ids, or a list of texts or of token ids",
        param="prompt",
    )


def _are_ids(value: JsonValue) -> bool:
    # Not isinstance, for which True is an int.
    return isinstance(value, list) and all(type(each) is int for each in value)


def text_of_ids(ids: Sequence[int], codec: TraceCodec) -> str:
    """Return the text of token ids, without a BOS. Raises ApiError for ids of no token."""
    size = len(codec.tokenizer)
    wrong = next((each for each in ids if not 0 <= each < size), None)
    if wrong is not None:
        raise _invalid("prompt", f"there is no token {wrong}; ids go from 0 to {size - 1}")
    prefix = codec.prefix_ids
    body = ids[len(prefix) :] if prefix and tuple(ids[: len(prefix)]) == prefix else ids
    return codec.tokenizer.decode(list(body), skip_special_tokens=False)


def _unframed(text: str, codec: TraceCodec) -> str:
    """The prompt in a text that bears the checkpoint's frame already, so that it gets one."""
    before, after = codec.grammar.prompt_frame.split("{prompt}")
    framed = len(text) > len(before) + len(after)
    # Evaluation harnesses render the chat template themselves.
    if framed and text.startswith(before) and text.endswith(after):
        return text[len(before) : len(text) - len(after)]
    return text


def _invalid(param: str, message: str) -> ApiError:
    return ApiError("invalid_value", f"{param}: {message}", param=param)
