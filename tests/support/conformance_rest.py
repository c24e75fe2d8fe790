"""What this server does with each field of OpenAI's chat completions and transcriptions.

The fields are those of openai-python's types. A key names a field, or what fields are in, with or
without the forms of what they are in: the longest one wins, and each is a line of the document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

from conformance import members_of
from openai.types.audio.transcription_create_params import TranscriptionCreateParamsStreaming
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from typing_extensions import get_type_hints, is_typeddict

from aqaa.server.protocol.types import Json

HI: Json = {"role": "user", "content": "hi"}
FUNCTION: Json = {"name": "f"}
TOOL: Json = {"type": "function", "function": FUNCTION}
CUSTOM: Json = {"type": "custom", "custom": FUNCTION}
MARK: Json = {"prompt_cache_breakpoint": {"mode": "explicit"}}
SPOKEN: Json = {"modalities": ["text", "audio"], "audio": {"voice": "joe", "format": "wav"}}


@dataclass(frozen=True)
class Said:
    """What is done with a field of a request.

    Attributes:
        word: `yes`: obeyed; `taken`: without effect; `refuse`: status 400, which names it.
        asked: what of a request has it, with an effect; a chat's `messages` come before a question.
        note: what else there is to say.
        off: values of the field that ask for nothing, and are taken where it is refused.
    """

    word: Literal["yes", "taken", "refuse"]
    asked: Json
    note: str = ""
    off: list[Any] = field(default_factory=list)


def _message(role: str, content: object = "hi", **more: object) -> Json:
    return {"messages": [{"role": role, "content": content, **more}]}


def _part(**part: object) -> Json:
    return _message("user", [{"type": "text", "text": "hi"}, part])


def _refused(value: object, note: str, off: list[Any], name: str) -> Said:
    return Said("refuse", {name: value}, note, off)


NAMED = Said("taken", _message("user", name="joe"), "a prompt has no place for names")
CACHED = Said(
    "taken", _part(type="text", text="hi", **MARK), "beginnings of prompts are kept unasked"
)
CALLED: Json = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
RESULT: Json = {"role": "tool", "tool_call_id": "c1", "content": "ok"}
MADE: Json = {"messages": [{"role": "assistant", "tool_calls": [CALLED]}, RESULT]}
OLD = "as `tools`, `tool_choice`, `tool_calls` and messages of `tool`"
IN_TOOLS = "by a bundle with `[tools]`"
HINT = "a hint of how to be quick"

CHAT: dict[str, Said] = {
    "messages[].name": NAMED,
    "messages[].content[].prompt_cache_breakpoint": CACHED,
    "messages[](Developer)": Said("yes", _message("developer")),
    "messages[](System)": Said("yes", _message("system")),
    "messages[](User)": Said("yes", _message("user")),
    "messages[](User).content[](image_url)": Said(
        "refuse", _part(type="image_url", image_url={"url": "data:,"}), "the model has no eyes"
    ),
    "messages[](User).content[](file)": Said(
        "refuse", _part(type="file", file={"file_data": "AAAA"}), "files are not read"
    ),
    "messages[](Assistant)": Said("yes", _message("assistant")),
    "messages[](Assistant).refusal": Said("yes", _message("assistant", None, refusal="no")),
    "messages[](Assistant).function_call": Said(
        "refuse", _message("assistant", function_call={"name": "f", "arguments": "{}"}), OLD
    ),
    "messages[](Assistant).tool_calls[](function)": Said("yes", MADE, IN_TOOLS),
    "messages[](Assistant).tool_calls[](custom)": Said(
        "refuse", _message("assistant", tool_calls=[{"id": "c1", **CUSTOM}]), "functions alone"
    ),
    "messages[](Tool)": Said("yes", MADE, IN_TOOLS),
    "messages[](Function)": Said("refuse", _message("function", name="f"), OLD),
    "model": Said("yes", {}, "the one that is served"),
    "audio.format": Said("yes", SPOKEN, "but not aac; streamed pcm16 alone"),
    "audio.voice": Said("yes", SPOKEN, "the bundle's; OpenAI's names mean its default voice"),
    "frequency_penalty": _refused(0.5, "but 0", [0, 0.0], "frequency_penalty"),
    "function_call": _refused(FUNCTION, OLD, ["none", "auto"], "function_call"),
    "functions": _refused([FUNCTION], OLD, [[]], "functions"),
    "logit_bias": _refused({"50": 10}, "but zeros", [{}, {"50": 0}], "logit_bias"),
    "logprobs": _refused(True, "but false", [False], "logprobs"),
    "max_completion_tokens": Said("yes", {"max_completion_tokens": 9}),
    "max_tokens": Said("yes", {"max_tokens": 9}),
    "metadata": Said("taken", {"metadata": {"a": "b"}}, "answers are not kept for reading"),
    "modalities": Said("yes", SPOKEN),
    "moderation": _refused({"model": "m"}, "nothing is moderated", [{}], "moderation"),
    "n": _refused(2, "but 1", [1], "n"),
    "parallel_tool_calls": Said("yes", {"parallel_tool_calls": False}, IN_TOOLS),
    "prediction": Said("taken", {"prediction": {"type": "content", "content": "hi"}}, HINT),
    "presence_penalty": _refused(-0.5, "but 0", [0, 0.0], "presence_penalty"),
    "prompt_cache_key": Said("taken", {"prompt_cache_key": "x"}, HINT),
    "prompt_cache_options": Said("taken", {"prompt_cache_options": {"mode": "implicit"}}, HINT),
    "prompt_cache_retention": Said("taken", {"prompt_cache_retention": "24h"}, HINT),
    "reasoning_effort": _refused(
        "high", "but none: the model does not reason", ["none"], "reasoning_effort"
    ),
    "response_format": _refused(
        {"type": "json_object"},
        "but text: what is spoken is no JSON",
        [{"type": "text"}],
        "response_format",
    ),
    "safety_identifier": Said("taken", {"safety_identifier": "x"}, "nobody is watched"),
    "seed": Said("yes", {"seed": 7}),
    "service_tier": _refused(
        "priority",
        "but auto and default: all are alike",
        ["auto", "default"],
        "service_tier",
    ),
    "stop": _refused("\n", "an answer is not cut at a word", ["", [], [""]], "stop"),
    "store": _refused(True, "but false: answers are not kept for reading", [False], "store"),
    "stream_options.include_obfuscation": _refused(
        {"include_obfuscation": True},
        "but false",
        [{"include_obfuscation": False}],
        "stream_options",
    ),
    "stream_options.include_usage": Said(
        "yes", {"stream": True, "stream_options": {"include_usage": True}}
    ),
    "temperature": Said("yes", {"temperature": 1.5}),
    "tool_choice": Said("yes", {"tools": [TOOL], "tool_choice": "none"}, IN_TOOLS),
    "tool_choice(allowed_tools)": Said(
        "yes",
        {
            "tools": [TOOL],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [TOOL]},
            },
        },
        IN_TOOLS,
    ),
    "tool_choice(custom)": Said(
        "refuse", {"tools": [TOOL], "tool_choice": CUSTOM}, "functions alone"
    ),
    "tools[](function)": Said("yes", {"tools": [TOOL]}, IN_TOOLS),
    "tools[](function).function.strict": Said(
        "taken",
        {"tools": [{"type": "function", "function": {**FUNCTION, "strict": False}}]},
        "calls always are",
    ),
    "tools[](custom)": Said("refuse", {"tools": [CUSTOM]}, "functions alone"),
    "top_logprobs": _refused(2, "but 0", [0], "top_logprobs"),
    "top_p": Said("yes", {"top_p": 0.5}, "above 0"),
    "user": Said("taken", {"user": "x"}, "nobody is watched"),
    "verbosity": _refused(
        "low", "but medium: say it in the system's message", ["medium"], "verbosity"
    ),
    "web_search_options": _refused({}, "nothing is searched", [], "web_search_options"),
    "stream": Said("yes", {"stream": True}),
}


ONE_RECOGNISER = "one recogniser serves every wish"

TRANSCRIPTION: dict[str, Said] = {
    "file": Said("yes", {}, "whatever FFmpeg reads"),
    "model": Said("yes", {}, "one recogniser serves every model"),
    "chunking_strategy": Said("taken", {"chunking_strategy": "auto"}, ONE_RECOGNISER),
    "include": Said("yes", {"include[]": "logprobs"}),
    "keywords": Said("taken", {"keywords[]": "x"}, ONE_RECOGNISER),
    "known_speaker_names": _refused(
        "joe", "speakers are not told apart", [], "known_speaker_names[]"
    ),
    "known_speaker_references": _refused(
        "data:,", "speakers are not told apart", [], "known_speaker_references[]"
    ),
    "language": Said("taken", {"language": "en"}, f"{ONE_RECOGNISER}; verbose_json shows it"),
    "languages": Said("taken", {"languages[]": "en"}, ONE_RECOGNISER),
    "prompt": Said("taken", {"prompt": "x"}, ONE_RECOGNISER),
    "response_format": Said("yes", {"response_format": "srt"}, "but diarized_json"),
    "temperature": Said("taken", {"temperature": "0.5"}, "the likeliest words are told"),
    "timestamp_granularities": Said(
        "yes", {"timestamp_granularities[]": "word"}, "in verbose_json"
    ),
    "stream": Said("yes", {"stream": "true"}, "as events of JSON, whatever the format"),
}


def chat_fields() -> Iterator[str]:
    """All fields of a chat's request, by their paths: `messages[](User).content[](text).text`."""
    return _fields_of(CompletionCreateParamsStreaming, "")


def transcription_fields() -> Iterator[str]:
    """All fields of a form."""
    return _fields_of(TranscriptionCreateParamsStreaming, "")


def _fields_of(form: type, path: str) -> Iterator[str]:
    for name, hint in get_type_hints(form, include_extras=True).items():
        if name in ("type", "role"):
            continue  # it tells which form the object has
        here = f"{path}.{name}" if path else name
        members = [one for one in members_of(hint) if one is not type(None)]
        objects = {one: here for one in members if is_typeddict(one)}
        for one in members:
            inner = members_of(get_args(one)[0]) if get_origin(one) and get_args(one) else ()
            objects |= {each: f"{here}[]" for each in inner if is_typeddict(each)}
        if any(one not in objects and not _lists_objects(one) for one in members):
            yield here
        several = len(objects) > 1
        for each, place in objects.items():
            yield from _fields_of(each, f"{place}({_tag(each)})" if several else place)


def _lists_objects(annotation: Any) -> bool:
    arguments = get_args(annotation) if get_origin(annotation) is not Literal else ()
    return bool(arguments) and any(map(is_typeddict, members_of(arguments[0])))


def _tag(form: type) -> str:
    """What tells this form of an object from others: its role or its type."""
    hints = get_type_hints(form, include_extras=True)
    for name in ("role", "type"):
        for one in members_of(hints[name]) if name in hints else ():
            if get_origin(one) is Literal:
                (word,) = get_args(one)
                return word.capitalize() if name == "role" else str(word)
    return form.__name__


def key_in(table: Mapping[str, Said], path: str) -> str:
    """The key of `table` that says what is done with the field at `path`.

    Raises:
        LookupError: there is none: openai-python has a field that nobody has looked at.
    """
    keys = [key for key in table if _covers(key, path) or _covers(key, _bare(path))]
    if not keys:
        raise LookupError(f"nothing is said of {path}: add it to conformance_rest.py")
    return max(keys, key=lambda key: (len(_bare(key)), len(key)))


def _covers(key: str, path: str) -> bool:
    return path == key or (path.startswith(key) and path[len(key)] in ".[(")


def _bare(path: str) -> str:
    """Without the names of forms."""
    return re.sub(r"\([^)]*\)", "", path)


def rest_lines() -> Iterator[str]:
    """The tables of the document."""
    yield from _lines("What a chat completion may ask for", CHAT, chat_fields())
    yield ""
    yield from _lines("What a transcription may ask for", TRANSCRIPTION, transcription_fields())


def _lines(title: str, table: Mapping[str, Said], fields: Iterator[str]) -> Iterator[str]:
    yield from (f"## {title}", "", "| field | | |", "|---|---|---|")
    for key in dict.fromkeys(key_in(table, path) for path in fields):
        said = table[key]
        yield f"| `{key.replace('[](', '[] (')}` | {said.word} | {said.note} |"
