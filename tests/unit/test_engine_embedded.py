"""What the embedded engine promises beyond the shared contract."""

from __future__ import annotations

import asyncio
import gc
import json
import random
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_conformance import a_prompt, answer, eventually, greedy
from safetensors.torch import load_file, save_file
from tiny_step1 import write_step1

from aqaa.models.errors import BundleError, EngineBusyError, EngineDiedError, EngineError
from aqaa.server.engine.contract import SamplingParams
from aqaa.server.engine.embedded.engine import EmbeddedEngine
from aqaa.server.engine.embedded.sampling import Sampler
from aqaa.server.engine.embedded.scheduler import (
    DECODE_LEAD_SECONDS,
    MAX_BATCH,
    PREFILL_CHUNK_IDS,
    PREFILL_CHUNK_STEPS,
    SECONDS_PER_ID,
    DecodeJob,
    Scheduler,
    choose,
)
from aqaa.server.engine.embedded.step1 import Step1
from aqaa.server.engine.settings import EmbeddedSettings
from aqaa.server.urgency import Kind

CONTEXT = 1024


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[EmbeddedEngine]:
    engine = EmbeddedEngine(write_step1(tmp_path), EmbeddedSettings(workers=2), CONTEXT)
    await engine.start()
    yield engine
    await engine.close()


async def test_an_answer_does_not_depend_on_what_other_sessions_do(
    engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    together: list[int] = []
    step = Step1.step

    def counted(self: Step1, ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        together.append(len(ids))
        return step(self, ids, *rest)

    monkeypatch.setattr(Step1, "step", counted)
    asked = [(a_prompt(engine, 20 + 11 * seed, seed), greedy(24)) for seed in range(4)]
    asked += [(prompt, SamplingParams(seed=7, max_tokens=24)) for prompt, _ in asked]
    alone = [await answer(engine, *each) for each in asked]
    assert together == []
    assert await asyncio.gather(*(answer(engine, *each) for each in asked)) == alone
    assert max(together) > 1


async def test_a_fault_in_a_common_step_is_tried_again_one_by_one(
    engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(self: Step1, *rest: object) -> torch.Tensor:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Step1, "step", faulty)
    prompts = [a_prompt(engine, 20, seed) for seed in range(3)]
    answers = await asyncio.gather(*(answer(engine, p, greedy(20)) for p in prompts))
    assert [len(ids) for ids in answers] == [20] * 3


async def test_a_fault_in_sampling_fails_its_row_and_loses_no_id_of_another(
    engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [a_prompt(engine, 20, seed) for seed in range(3)]
    expected = [await answer(engine, prompt, greedy(30)) for prompt in prompts]
    victim = SamplingParams(temperature=0.0, max_tokens=30, top_p=0.5)  # known by its top_p
    draw = Sampler._draw

    def faulty(self: Sampler, logits: torch.Tensor, ids: list[int]) -> int:
        if self._params.top_p == victim.top_p and len(ids) > 30:
            raise RuntimeError("not a number")
        return draw(self, logits, ids)

    monkeypatch.setattr(Sampler, "_draw", faulty)
    results = await asyncio.gather(
        answer(engine, prompts[0], greedy(30)),
        answer(engine, prompts[1], victim),
        answer(engine, prompts[2], greedy(30)),
        return_exceptions=True,
    )
    assert isinstance(results[1], EngineError)
    assert [results[0], results[2]] == [expected[0], expected[2]]


async def test_the_decoders_one_thread_is_not_the_default_of_others(
    engine: EmbeddedEngine,
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        await engine.close()
        await engine.start()
        await answer(engine, [1, 2, 3], greedy(3))
        with ThreadPoolExecutor(1) as others:
            assert others.submit(torch.get_num_threads).result() == 3
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


async def test_a_released_session_is_forgotten(engine: EmbeddedEngine) -> None:
    prompt = a_prompt(engine, 100)
    await engine.warm("gone", prompt)
    await engine.release("gone")
    assert engine.stats().sessions == 0
    assert await engine.warm("gone", prompt) == 100


async def test_warming_an_older_prefix_keeps_what_comes_after_it(engine: EmbeddedEngine) -> None:
    prompt = a_prompt(engine, 100)
    await engine.warm("one", prompt)
    assert await engine.warm("one", prompt[:40]) == 0
    assert await engine.warm("one", prompt) == 0


async def test_a_stopped_engine_says_so(engine: EmbeddedEngine) -> None:
    await engine.close()
    with pytest.raises(EngineDiedError, match="start it"):
        await engine.warm("one", [1, 2])


def memory_in_use() -> tuple[int, int]:
    """Bytes in living tensors, and how many objects Python's collector knows."""
    gc.collect()
    known = gc.get_objects()
    tensors = [thing for thing in known if type(thing) is torch.Tensor]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values()), len(known)


async def test_a_thousand_cancelled_answers_leave_nothing_behind(engine: EmbeddedEngine) -> None:
    async def cycles(count: int) -> tuple[int, int]:
        for number in range(count):
            session = f"caller-{number % 16}"
            stream = engine.generate(session, a_prompt(engine, 40, number), greedy(500))
            await anext(stream)
            await engine.cancel(session)
            await stream.aclose()
            if number % 3 == 0:
                await engine.release(session)
        for number in range(16):
            await engine.release(f"caller-{number}")
        await eventually(lambda: engine.stats().running == 0)
        return memory_in_use()

    tensors, objects = await cycles(200)
    await cycles(1000)
    # less than a byte an answer: in a whole run, a number of another test's may come or go, and the
    # scheduler may for a moment hold what it computed last
    await eventually(lambda: memory_in_use()[0] - tensors < 1000)
    assert memory_in_use()[1] - objects < 200  # less than one for five answers
    assert engine.stats().cancelled == 1200


def small_room(directory: Path, sessions: int) -> Scheduler:
    """Room for so many sessions of a short prompt and 200 ids."""
    return Scheduler(Step1.load(write_step1(directory), CONTEXT), 256 * sessions, workers=1)


def wanted() -> Kind:
    return Kind.FIRST


def submit(scheduler: Scheduler, key: str, tokens: int = 200) -> list[object]:
    """Begin an answer; the list takes what is delivered."""
    delivered: list[object] = []
    scheduler.submit(key, DecodeJob([1, 2, 3], greedy(tokens), delivered.append, wanted))
    return delivered


async def test_the_longest_unused_session_makes_room(tmp_path: Path) -> None:
    scheduler = small_room(tmp_path, 2)
    for key in ("first", "second", "first", "third"):
        delivered = submit(scheduler, key, tokens=5)
        await eventually(lambda delivered=delivered: None in delivered)
    stats = scheduler.stats()
    assert (stats.sessions, stats.evictions) == (2, 1)
    before = stats.computed_tokens
    delivered = submit(scheduler, "first", tokens=5)
    await eventually(lambda: None in delivered)
    assert scheduler.stats().computed_tokens - before == 1  # "second" went, "first" is still held
    scheduler.close()


async def test_running_sessions_are_never_evicted_and_the_next_is_refused(tmp_path: Path) -> None:
    scheduler = small_room(tmp_path, 2)
    running = [submit(scheduler, key) for key in ("first", "second")]
    with pytest.raises(EngineBusyError, match="cache_mb"):
        submit(scheduler, "third")
    assert scheduler.stats().running == 2
    scheduler.close()
    assert all(isinstance(delivered[-1], EngineDiedError) for delivered in running)


async def test_a_long_prompt_does_not_hold_up_an_answer(tmp_path: Path) -> None:
    scheduler = Scheduler(Step1.load(write_step1(tmp_path), CONTEXT), 8192, workers=1)
    order: list[str] = []
    answering = DecodeJob([1, 2], greedy(12), lambda item: order.append("token"), wanted)
    reading = DecodeJob(
        [5] * (PREFILL_CHUNK_IDS * 12), None, lambda item: order.append("prompt read"), wanted
    )
    scheduler.submit("reading", reading)
    scheduler.submit("answering", answering)
    await eventually(lambda: "prompt read" in order and len(order) >= 12)
    scheduler.close()
    assert order.index("prompt read") >= 10


def job(due: float, made: int = 1, kind: Kind = Kind.LIVE) -> DecodeJob:
    return DecodeJob([1], greedy(9), lambda _: None, lambda: kind, made=made, due=due, kind=kind)


def test_an_answer_that_begins_overtakes_those_that_are_ahead_of_their_sound():
    ahead, begins, late = job(due=8.0), job(due=3.6), job(due=4.9)
    assert choose([ahead, begins, late], now=5.0) == [begins, late]
    assert choose([ahead], now=5.0) == [ahead], "nobody else wants the decoder"


def test_a_prompt_is_read_alone_and_before_what_is_due_after_it():
    prompt, urgent, early = job(due=4.0, made=0), job(due=3.0), job(due=9.0)
    assert choose([early, prompt, urgent], now=5.0) == [urgent]
    assert choose([early, prompt], now=5.0) == [prompt]


def test_what_nobody_waits_for_waits_for_what_somebody_does():
    live, ahead = job(due=4.9), job(due=6.5)
    speculation, download = job(due=5.0, kind=Kind.SPECULATIVE), job(due=3.5, kind=Kind.BULK)
    jobs = [download, speculation, ahead, live]
    assert choose(jobs, now=5.0) == [live], "steps that are not wanted would make it longer"
    assert choose([download, speculation, ahead], now=5.0) == [speculation], "nor are downloads"
    assert choose([download, ahead], now=5.0) == [ahead]


def test_a_speculation_that_is_asked_for_is_decoded_as_what_it_is_now():
    kinds = [Kind.SPECULATIVE]
    speculation = DecodeJob([1], greedy(9), lambda _: None, lambda: kinds[-1], made=1, due=4.0)
    live = job(due=4.25)
    assert choose([live, speculation], now=5.0) == [live]
    kinds.append(Kind.FIRST)
    assert choose([live, speculation], now=5.0) == [speculation, live]


def test_what_nobody_could_listen_to_for_long_is_not_behind_once_somebody_may() -> None:
    """Simulated: a step takes 2 ms. What came of it meanwhile was two seconds less than is played
    in that time."""
    kinds = [Kind.BULK]
    hurried = DecodeJob([1], greedy(9), lambda _: None, lambda: kinds[-1], made=70, due=1.0)
    assert choose([hurried], now=3.0 + DECODE_LEAD_SECONDS) == [hurried]
    kinds.append(Kind.LIVE)
    now = 3.1 + DECODE_LEAD_SECONDS
    waits = job(due=now - DECODE_LEAD_SECONDS, made=0, kind=Kind.FIRST)
    began = now
    while choose([hurried, waits], now) != [waits]:
        now += 0.002
        hurried.due += SECONDS_PER_ID
    assert now - began < 0.05, "a first id waited for more than a live answer's usual lead"
    assert hurried.due < now, "a gap in what is heard was risked"


def test_what_was_played_before_anybody_could_listen_is_not_sound_in_hand() -> None:
    hurried, live = job(due=1.0, made=700, kind=Kind.BULK), job(due=4.9)
    hurried.read = 700  # eight seconds of sound, played to nobody
    for kind in (Kind.FIRST, Kind.LIVE):
        hurried.purpose = lambda kind=kind: kind
        chosen = choose([hurried, live], now=5.0)
    assert chosen == [hurried, live]


def test_an_answer_whose_sound_began_late_is_due_by_when_that_is_played() -> None:
    kinds = [Kind.FIRST]
    made_early = DecodeJob([1], greedy(9), lambda _: None, lambda: kinds[-1], made=120, due=1.7)
    choose([made_early], now=4.0)
    kinds.append(Kind.LIVE)  # its first sound is played now, the next id's in 1.7 s
    waits = job(due=5.0 - DECODE_LEAD_SECONDS, kind=Kind.FIRST)
    assert choose([made_early, waits], now=5.0) == [waits]


def test_a_gap_does_not_make_all_that_follows_overdue() -> None:
    """Simulated: a step takes 2 ms. Each id is played three seconds later than it might be."""
    now = 10.0
    late = job(due=now - DECODE_LEAD_SECONDS - 3.0)
    waits = job(due=now - DECODE_LEAD_SECONDS, made=0, kind=Kind.FIRST)
    assert choose([late, waits], now) == [late]
    while choose([late, waits], now) != [waits]:
        now += 0.002
        late.due += SECONDS_PER_ID
    assert now - 10.0 < 0.05


def test_a_first_sound_is_decoded_without_what_has_sound_enough_ahead() -> None:
    """Simulated: nano's steps, of one row and of more. The others have 0.6 s ahead."""
    now = 10.0
    begins = job(due=now - DECODE_LEAD_SECONDS, kind=Kind.FIRST)
    others = [job(due=now - DECODE_LEAD_SECONDS + 0.6) for _ in range(3)]
    ids = 0
    while ids < 25:
        taken = choose([begins, *others], now)
        now += 0.0016 + 0.0006 * (len(taken) - 1)
        ids += begins in taken
        for each in taken:
            each.due += SECONDS_PER_ID
    assert now - 10.0 < 0.05, "it waited for steps that were none of its own"
    assert all(each.due < now for each in others), "they are still decoded as what is due"


def test_first_sounds_that_begin_together_share_their_steps() -> None:
    both = [job(due=3.0, kind=Kind.FIRST), job(due=3.05, kind=Kind.FIRST)]
    late = job(due=3.25)
    assert choose([*both, late], now=5.0) == [*both, late], "a gap would be near"
    assert choose([*both, job(due=3.7)], now=5.0) == both


def test_only_the_ids_that_may_come_next_are_scored(tmp_path: Path) -> None:
    decoder = Step1.load(write_step1(tmp_path), CONTEXT)
    hidden = decoder.forward(torch.tensor([5, 6]), decoder.empty_cache(8), 0)
    all_of_them, some = decoder.logits(hidden), decoder.logits(hidden, slice(3, 9))
    torch.testing.assert_close(some[:, 3:9], all_of_them[:, 3:9])
    assert some[:, :3].isneginf().all()
    assert some[:, 9:].isneginf().all()


def test_no_more_are_stepped_together_than_a_gap_allows():
    jobs = [job(due=number / 10) for number in range(MAX_BATCH + 3)]
    assert choose(reversed(jobs), now=1.2) == jobs[:MAX_BATCH]
    assert choose([], now=1.2) == []


def test_neither_a_long_prompt_nor_an_answer_starves_the_other():
    """Simulated: a step takes 2 ms, a chunk of the prompt 16."""
    prompt, answering = job(due=-DECODE_LEAD_SECONDS, made=0), job(due=-DECODE_LEAD_SECONDS)
    chunks, now = 0, 0.0
    while now < 20:
        if choose([prompt, answering], now) == [prompt]:
            now += 0.016
            chunks += 1
            prompt.due += SECONDS_PER_ID * PREFILL_CHUNK_STEPS
        else:
            now += 0.002
            answering.made += 1
            answering.due += SECONDS_PER_ID
        assert answering.made * SECONDS_PER_ID > now - 0.1, "its sound would have come to an end"
    assert chunks > 400


async def test_a_fault_in_the_decoder_fails_its_request_only(
    engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Step1.forward

    def faulty(self: Step1, ids: torch.Tensor, cache: torch.Tensor, start: int) -> torch.Tensor:
        if 13 in ids.tolist():
            raise RuntimeError("out of memory")
        return forward(self, ids, cache, start)

    monkeypatch.setattr(Step1, "forward", faulty)
    with pytest.raises(EngineError, match="out of memory"):
        await answer(engine, [13], greedy(3))
    assert engine.stats().running == 0
    assert len(await answer(engine, [14], greedy(1))) == 1


async def test_shards_with_an_index_give_the_same_answer(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    directory = write_step1(tmp_path / "sharded")
    weights = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names = sorted(weights)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: weights[name] for name in part}, directory / file)
    index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    sharded = EmbeddedEngine(directory, EmbeddedSettings(), CONTEXT)
    await sharded.start()
    prompt = a_prompt(engine, 20)
    assert await answer(sharded, prompt, greedy(8)) == await answer(engine, prompt, greedy(8))
    await sharded.close()


def change(key: str, value: object) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        file = directory / "config.json"
        config = json.loads(file.read_text())
        config.pop(key) if value is None else config.update({key: value})
        file.write_text(json.dumps(config))

    return edit


def drop_tensor(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, directory / "model.safetensors")


def truncate(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(change("num_attention_groups", None), "num_attention_groups", id="no key"),
        pytest.param(change("hidden_size", "96"), "hidden_size", id="a string for a number"),
        pytest.param(change("num_attention_heads", 7), "not a multiple", id="heads do not divide"),
        pytest.param(change("intermediate_size", 200), "gate_proj", id="tensors of another shape"),
        pytest.param(drop_tensor, "up_proj", id="a tensor is missing"),
        pytest.param(truncate, "model.safetensors", id="a truncated file"),
        pytest.param(lambda d: (d / "config.json").write_text("{"), "JSON", id="no JSON"),
        pytest.param(lambda d: (d / "model.safetensors").unlink(), "missing", id="no weights"),
    ],
)
async def test_a_damaged_checkpoint_is_one_clear_error(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    write_step1(tmp_path)
    damage(tmp_path)
    with pytest.raises(BundleError, match=message):
        await EmbeddedEngine(tmp_path, EmbeddedSettings()).start()


def test_the_decoder_is_the_formula(tmp_path: Path) -> None:
    """Against a second, naive transcription of SPEC 6: explicit bias, repeated groups, no cache."""
    write_step1(tmp_path, num_attention_heads=12, num_attention_groups=4)
    decoder = Step1.load(tmp_path)
    ids = [random.Random(3).randrange(decoder.config.vocab_size) for _ in range(40)]
    expected = naive(load_file(tmp_path / "model.safetensors"), decoder, ids)
    ours = decoder.logits(decoder.forward(torch.tensor(ids), decoder.empty_cache(40), 0))
    torch.testing.assert_close(ours, expected, atol=1e-3, rtol=1e-4)


def test_a_common_step_is_bit_by_bit_that_of_each_alone(tmp_path: Path) -> None:
    decoder = Step1.load(write_step1(tmp_path))
    beginnings = [[3, 4, 5], [900] * 40, [7]]
    caches = [decoder.empty_cache(64) for _ in beginnings]
    for ids, cache in zip(beginnings, caches, strict=True):
        decoder.forward(torch.tensor(ids), cache, 0)
    copies = [cache.clone() for cache in caches]
    starts = [len(ids) for ids in beginnings]
    nexts = torch.tensor([1, 2, 3])
    together = decoder.step(nexts, caches, starts)
    alone = [
        decoder.forward(nexts[i : i + 1], copies[i], starts[i])[0] for i in range(len(beginnings))
    ]
    assert torch.equal(together, torch.stack(alone))
    for mine, other, start in zip(caches, copies, starts, strict=True):
        held = (..., slice(start + 1), slice(None))
        assert torch.equal(mine[held], other[held])


def naive(weights: dict[str, torch.Tensor], decoder: Step1, ids: list[int]) -> torch.Tensor:
    config = decoder.config
    heads, width = config.num_attention_heads, config.head_dim
    slopes = [2 ** (-8 * (h + 1) / 8) for h in range(8)] + [
        2 ** (-4 * (2 * m + 1) / 8) for m in range(4)
    ]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        scale = (x.pow(2).mean(-1, keepdim=True) + config.rms_norm_eps).sqrt()
        return x / scale * weights[name]

    x = weights["model.embed_tokens.weight"][ids]
    for layer in range(config.num_hidden_layers):
        at = f"model.layers.{layer}."
        y = norm(x, at + "input_layernorm.weight")
        q, k, v = (y @ weights[f"{at}self_attn.{n}_proj.weight"].T for n in "qkv")
        out = torch.zeros_like(q)
        for head in range(heads):
            group = head // (heads // config.num_attention_groups)
            mine, theirs = (slice(n * width, (n + 1) * width) for n in (head, group))
            for i in range(len(ids)):
                scores = k[: i + 1, theirs] @ q[i, mine] / width**0.5
                scores -= slopes[head] * (i - torch.arange(i + 1.0)).sqrt()
                out[i, mine] = scores.softmax(0) @ v[: i + 1, theirs]
        x = x + out @ weights[at + "self_attn.o_proj.weight"].T
        y = norm(x, at + "post_attention_layernorm.weight")
        gate, up = (y @ weights[f"{at}mlp.{n}_proj.weight"].T for n in ("gate", "up"))
        x = x + (torch.nn.functional.silu(gate) * up) @ weights[at + "mlp.down_proj.weight"].T
    return norm(x, "model.norm.weight") @ weights["lm_head.weight"].T
