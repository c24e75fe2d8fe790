"""The evaluation's judges."""

from __future__ import annotations

import numpy as np
import pytest

from aqaa.models.bundle import VOCODER_RATE
from aqaa.recipe.evaluate.judges import MOS_HOP, mean_pitch, out_of_step


@pytest.mark.parametrize("length", [1, MOS_HOP // 2, MOS_HOP, 12 * MOS_HOP, 30_720, 30_721])
def test_no_clip_repeats_in_step_with_dnsmos_and_none_loses_a_sample(length: int) -> None:
    clip = np.ones(length, np.float32)

    judged = out_of_step(clip)

    assert len(judged) % MOS_HOP == MOS_HOP // 2
    assert len(judged) - length < MOS_HOP
    assert np.array_equal(judged[:length], clip)
    assert not judged[length:].any()


def test_the_mean_pitch_is_that_of_what_has_a_voice() -> None:
    time = np.arange(VOCODER_RATE) / VOCODER_RATE
    hum = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 8)).astype(np.float32)

    assert mean_pitch(np.concatenate([hum, np.zeros_like(hum)])) == pytest.approx(120, rel=0.02)
    assert np.isnan(mean_pitch(np.zeros(VOCODER_RATE, np.float32)))
