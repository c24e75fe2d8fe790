"""Writes `models/nano/aqaa.toml`, the numbers of the bundle that the parts agree on."""

from __future__ import annotations

import json
from pathlib import Path

from aqaa.models.bundle import load_bundle, nano_path
from aqaa.models.errors import BundleError
from aqaa.recipe.decoder.clips import rows_of
from aqaa.recipe.decoder.prepare import folder, pieces_path
from aqaa.recipe.decoder.text import CALL_MARKERS, Pieces
from aqaa.recipe.domain.load import load_domain

LARGEST = 80_000_000  # bytes; the bundle is kept in git
ANSWERS = 50  # whose tokens go with the bundle, to listen to its vocoder by itself

LICENCE = (
    "Apache-2.0; trained on synthetic speech only (piper joe, flite, festival, espeak-ng,"
    " Kokoro-82M); guided by whisper tiny.en"
)
TEMPLATE = """\
name = "nano"
description = "A complete Step-Audio-AQAA, tiny: a closed English domain, trained by recipe."
# Teachers: see README.md, "What it was trained on".
license = "{licence}"

[tokenizer]
path = "Step-Audio-Tokenizer"
normalise = false
stream_peak = 0.0

[tokenizer.streaming]  # trained chunk-causal: a stream's tokens are those of the whole
chunk_ms = 240
left_ms = 3120
right_ms = 0
mel_peak = 1.2
exact = true

[tokens]
audio_offset = {audio_offset}
bos = {bos}
eot = {eot}
bot = {bot}
pad = {pad}
audio_start = {audio_start}
audio_end = {audio_end}
text_block = {text_block}
audio_block = {audio_block}

[tokens.voice_markers]  # a mood is a voice of the vocoder's
{voices}

[tools]  # README of the recipe, "How nano meets tools"
call_start = {call_start}
call_end = {call_end}
show = "signatures"

[decoder]
path = "decoder"
context = 2048

[sampling]  # an answer has one rendering: the likeliest ids are the best
temperature = 0.0
keep_pattern = true
max_tokens = 400

[vocoder]
path = "CosyVoice-300M-25Hz"
steps = 1
temperature = 0.0
chunk_groups = [3, 3, 6]  # 25 ids, a block of text and its sound, are enough to begin
lookahead_frames = 16
min_frames = 10  # an answer that began with two groups would be heard to change after them
context_groups = 10  # with less the end of an answer suffers, with more the joins stand out

[voices]
path = "voices"
default = "joe"
"""

TRANSCRIBER = """
[transcriber]  # the user's words, from what the linguistic tokenizer heard and made of it
kind = "ctc"
path = "transcriber"
language_weight = 0.6
piece_bonus = 1.0
"""

# Chosen on recordings of people and held-out questions (docs/performance.md): `medium` cuts off
# three of 120 orders by people, as plain silence of 350 ms does. Of true ends one in twenty looks
# as unlikely as 0.005; only a client that asks for patience waits for seconds there.
TURN = """
[turn]  # has the speaker finished? asked of the audio ids
path = "turn"

[turn.low]
sure = 0.9
likely = 0.05
unlikely = 0.005

[turn.medium]
sure = 0.7
likely = 0.005
unlikely = 0.0
sure_ms = 200
likely_ms = 350

[turn.high]
sure = 0.3
likely = 0.005
unlikely = 0.0
sure_ms = 200
likely_ms = 350
"""


def described(root: Path) -> str:
    """The `aqaa.toml` of the bundle in `root`: the ids of its pieces, and the parts it has."""
    pieces = Pieces.load(root / "decoder" / pieces_path().name)
    tokens = pieces.tokens
    begin, end = (pieces.control(marker) for marker in CALL_MARKERS)
    voices = "\n".join(f"{name} = {marker}" for name, marker in tokens.voice_markers.items())
    values = tokens.model_dump() | {"voices": voices, "licence": LICENCE}
    text = TEMPLATE.format(**values, call_start=begin, call_end=end)
    parts = (("transcriber", TRANSCRIBER), ("turn", TURN))
    return text + "".join(section for name, section in parts if (root / name).is_dir())


def pack(directory: Path | None = None) -> Path:
    """Writes and loads `aqaa.toml`; the path of the bundle.

    Raises:
        BundleError: the bundle is incomplete or larger than git should hold.
    """
    root = directory or nano_path()
    (root / "aqaa.toml").write_text(described(root), encoding="utf-8")
    pack_answers(root / "examples" / "answers.json")
    load_bundle(root)
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    if size > LARGEST:
        raise BundleError(f"{root} has {size} bytes; {LARGEST} is the most that git should hold")
    return root


def pack_answers(path: Path) -> None:
    """Writes the audio tokens of `ANSWERS` answers, spread over the domain, as they are taught."""
    own = set(load_domain().answers())
    rows = rows_of(folder() / "answers.npz")
    plain = [(text, codes) for text, style, codes in rows if style == "plain" and text in own]
    chosen = plain[:: max(1, len(plain) // ANSWERS)][:ANSWERS]
    lines = [json.dumps({"text": text, "tokens": codes.tolist()}) for text, codes in chosen]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
