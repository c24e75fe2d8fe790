"""Which judge of turns a bundle gets."""

from __future__ import annotations

from aqaa.models.bundle import Bundle
from aqaa.server.hearing.end_of_turn import Judge
from aqaa.server.hearing.smart_turn import SmartTurn
from aqaa.server.hearing.turn_head import HeadJudge, TurnHead


def choose_judge(bundle: Bundle) -> tuple[Judge | None, str]:
    """The judge for `semantic_vad`, and why; None: silence alone ends turns.

    Raises:
        BundleError: the bundle names a turn head that cannot be loaded.
    """
    if bundle.turn is not None:
        head = TurnHead.load(bundle.turn.path)
        return HeadJudge(head, bundle.turn, bundle.tokens.audio_offset), "the bundle has [turn]"
    judge = SmartTurn.find()
    if judge is not None:
        return judge, "the bundle has no [turn]; pipecat-ai is installed"
    return None, "the bundle has no [turn], and pipecat-ai with Smart Turn is not installed"
