"""A judge that is a model behind an OpenAI-compatible address."""

from __future__ import annotations

import re

import httpx

from aqaa.models.errors import ConnectionLostError
from aqaa.recipe.evaluate.protocol import Asked

SCALE = 5  # the best mark
SECONDS = 120.0
QUESTION = """\
Somebody asked a voice assistant: "{asked}"
It answered (as a speech recogniser heard it): "{heard}"
How good is the answer? Give one mark from 1 (wrong, or no answer) to {scale} (right and helpful).
Answer with the number alone."""


class ModelJudge:
    """Asks a chat model for a mark."""

    def __init__(self, url: str, model: str = "", api_key: str = "") -> None:
        """`url`: the server's, with or without `/v1`; `model` "" is the server's own choice."""
        self._url = f"{url.rstrip('/').removesuffix('/v1')}/v1/chat/completions"
        self._model = model
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    async def score(self, asked: Asked, heard: str, transcript: str) -> float:
        """The mark, from 0 to 1.

        Raises:
            ConnectionLostError: the judge does not answer, or not with a mark.
        """
        content = QUESTION.format(asked=asked.text, heard=heard or transcript, scale=SCALE)
        body: dict[str, object] = {"messages": [{"role": "user", "content": content}]}
        body |= {"temperature": 0, "max_tokens": 8}
        if self._model:
            body["model"] = self._model
        try:
            async with httpx.AsyncClient(timeout=SECONDS) as client:
                reply = await client.post(self._url, json=body, headers=self._headers)
                reply.raise_for_status()
                said = str(reply.json()["choices"][0]["message"]["content"])
        except (httpx.HTTPError, KeyError, IndexError, ValueError) as error:
            raise ConnectionLostError(
                f"the judge at {self._url} gave no answer: {error}"
            ) from error
        return mark(said)


def mark(said: str) -> float:
    """The first whole mark in `said`, from 0 to 1.

    Raises:
        ConnectionLostError: there is none.
    """
    found = re.search(rf"\b[1-{SCALE}]\b", said)
    if found is None:
        raise ConnectionLostError(f"the judge gave no mark: {said!r}")
    return (int(found.group()) - 1) / (SCALE - 1)
