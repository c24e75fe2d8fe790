"""What is counted of an answer's sound when it leaves: playback, underruns, the heard latency."""

from __future__ import annotations

from aqaa.server.answering.answer import Progress
from aqaa.server.answering.answer_events import AnswerSound
from aqaa.server.observe.latency import STAGES
from aqaa.server.observe.metrics import Metrics


def count_sound(
    metrics: Metrics, progress: Progress, sound: AnswerSound, now: float, *, heard: bool
) -> dict[str, float]:
    """Count `sound` of an answer that leaves now, in seconds of the session's clock.

    A gap counts as an underrun if it is `heard`: if somebody can be listening to the answer.
    Returns the stages of the heard latency in milliseconds with the first sound of a spoken turn's
    answer; empty in all other cases.
    """
    gap = progress.playback.send(sound.seconds, now)
    metrics.spoken.inc(sound.seconds)
    if gap > 0 and heard:
        metrics.underruns.inc()
        metrics.gap.inc(gap)
    if progress.timeline.send is not None:
        return {}
    progress.timeline.send = now
    stages = progress.timeline.stages()
    if stages:
        metrics.heard.observe(stages["total"] / 1000)
        for stage in STAGES:
            metrics.stage.labels(stage).observe(stages[stage] / 1000)
    return stages
