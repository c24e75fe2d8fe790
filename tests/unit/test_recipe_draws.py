"""The batches that processes draw beside a GPU that trains."""

import random
from typing import cast

import torch
from torch.utils.data import DataLoader

from aqaa.recipe.decoder.layout import Talk
from aqaa.recipe.decoder.sampler import Sampler
from aqaa.recipe.decoder.train import Draws


class _Talker:
    """A sampler whose conversations are forty random ids, the last five predicted."""

    def __init__(self) -> None:
        self.rng = random.Random(1)

    def talk(self) -> Talk:
        talk = Talk()
        talk.add([self.rng.randrange(1000) for _ in range(35)])
        talk.add([self.rng.randrange(1000) for _ in range(5)], 1.0)
        return talk


def test_processes_that_draw_beside_a_gpu_draw_each_its_own() -> None:
    draws = Draws(cast(Sampler, _Talker()), 400, pad=0)
    drawn = iter(DataLoader(draws, batch_size=None, num_workers=2))
    one, other = next(drawn), next(drawn)
    assert one.ids.shape == other.ids.shape == (10, 40)
    assert not torch.equal(one.ids, other.ids)
    assert len(one.targets) == 50
