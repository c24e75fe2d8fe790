"""Writes the tables of docs/conformance.md.

python tests/support/conformance_document.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
from conformance import Model, judged, members_of, models_in, ours_by_type, server_types, tag_of
from conformance_rest import rest_lines
from conformance_tour import fields_seen
from conformance_verdicts import NEVER_SENT, SENT
from openai.types.realtime import RealtimeServerEvent

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"
BEGIN = "<!-- The tables are written by tests/support/conformance_document.py. -->\n"
END = "<!-- Here the tables end. -->\n"
SHARED = ("item", "response", "session")  # objects of several events: a table each

Seen = dict[str, bool]


def tables() -> str:
    """The generated part of the document."""
    lines = [
        f"Generated from the types of openai-python {openai.__version__}.",
        *_client_lines(),
        "",
        "## What the server sends",
        "",
        "| event | its fields |",
        "|---|---|",
        *_server_lines(),
    ]
    for name in SHARED:
        lines += ["", f"Of every `{name}`:", "", "| field | |", "|---|---|"]
        lines += [f"| `{field}` | {word} |" for field, word in _shared(name).items()]
    own = sorted(ours_by_type().keys() - server_types())
    lines += ["", f"Of our own, for those who ask: {', '.join(f'`{one}`' for one in own)}."]
    lines += ["", *rest_lines()]
    return "\n".join(lines) + "\n"


def _client_lines() -> Iterator[str]:
    yield from ("", "## What a client may send", "", "| event | field | | |", "|---|---|---|---|")
    last, seen = "", set[str]()
    for field, name, verdict in judged():
        if name in seen:
            continue
        seen.add(name)
        event = f"`{field.event}`" if field.event != last else ""
        last = field.event
        path = name.removeprefix(field.event).strip().replace("[](", "[] (")  # not a link
        yield f"| {event} | `{path}` | {verdict.word} | {verdict.note} |"


def _server_lines() -> Iterator[str]:
    for event in sorted(members_of(RealtimeServerEvent), key=tag_of):
        kind = tag_of(event)
        if kind in NEVER_SENT:
            yield f"| `{kind}` | never sent: {NEVER_SENT[kind]} |"
            continue
        words: dict[str, list[str]] = {}
        for path, word in _words(event, "", fields_seen()[kind]):
            words.setdefault(word, []).append(f"`{path}`")
        notes = [SENT[kind]] if kind in SENT else []
        told = [
            *([", ".join(words["yes"])] if "yes" in words else []),
            *(f"{word}: {', '.join(words[word])}" for word in ("null", "never") if word in words),
            *notes,
        ]
        yield f"| `{kind}` | {'; '.join(told)} |"


def _words(form: Model, path: str, seen: Seen) -> Iterator[tuple[str, str]]:
    """The fields of an object, but for its type, and whether they are sent: yes, null or never."""
    for name, info in form.model_fields.items():
        here = f"{path}.{name}" if path else name
        if here in ("type", "event_id"):
            continue
        forms = models_in(info.annotation)
        if not seen.get(here) or not forms or (not path and name in SHARED):
            word = "yes" if seen.get(here) else "null" if here in seen else "never"
            yield here, word
            continue
        yield from _forms(forms, here, seen)


def _forms(forms: list[Model], path: str, seen: Seen) -> Iterator[tuple[str, str]]:
    for form in forms:
        inner = f"{path}({tag_of(form)})" if len(forms) > 1 else path
        if inner not in seen:
            yield inner, "never"
        else:
            yield from _words(form, inner, seen)


def _shared(name: str) -> dict[str, str]:
    """The fields of an object that several events have: what any of them has."""
    forms: dict[Model, None] = {}
    seen: Seen = {}
    for event in members_of(RealtimeServerEvent):
        of_event = fields_seen().get(tag_of(event), {})
        if name in event.model_fields and of_event.get(name):
            forms |= dict.fromkeys(models_in(event.model_fields[name].annotation))
            for path, has_value in of_event.items():
                seen[path] = seen.get(path, False) or has_value
    return dict(_forms(list(forms), name, seen))


def document(text: str) -> str:
    """`text` with its tables written anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


def main() -> None:
    DOCUMENT.write_text(document(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
