"""The shipped bundle is what the recipe packs."""

from aqaa.models.bundle import load_bundle, nano_path
from aqaa.recipe.decoder.text import CALL_MARKERS, PIECES, Pieces
from aqaa.recipe.pack import described


def test_nanos_description_is_the_recipes() -> None:
    assert described(nano_path()) == (nano_path() / "aqaa.toml").read_text(encoding="utf-8")


def test_nano_is_told_of_functions_as_the_recipe_teaches() -> None:
    bundle = load_bundle(nano_path())
    pieces = Pieces.load(bundle.decoder.path / bundle.decoder.text_tokenizer)
    assert bundle.tools is not None
    marks = (bundle.tools.call_start, bundle.tools.call_end)
    assert marks == tuple(pieces.control(marker) for marker in CALL_MARKERS)
    assert bundle.tools.show == "signatures"
    assert bundle.tokens.audio_offset == PIECES
