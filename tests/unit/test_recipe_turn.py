"""The turn head's moments, its training, and how it is judged."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from aqaa.models.bundle import nano_path
from aqaa.models.groups import AUDIO_CODES, GROUP_TOKENS, check_groups
from aqaa.recipe.pack import described
from aqaa.recipe.speech.augment import RATE
from aqaa.recipe.turn import moments
from aqaa.recipe.turn.moments import (
    BACKCHANNELS,
    INTERRUPTIONS,
    broken,
    cough,
    disturbance,
    interruption,
    quiet_place,
    word_ends,
)
from aqaa.recipe.turn.tokens import (
    UNKNOWN,
    Asked,
    ears,
    interjection_plan,
    load,
    save,
    tokenise,
)
from aqaa.recipe.turn.train import (
    area,
    batch_of,
    export,
    losses,
    report,
    train_head,
    vectors_of,
)
from aqaa.server.hearing.turn_head import KINDS, WEIGHTS, WIDTH, TurnHead


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small wait for each other's threads most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def words(*seconds: float) -> np.ndarray:
    """Tones with silences of 50 ms between them."""
    parts = []
    for one in seconds:
        place = np.arange(int(one * RATE))
        parts += [0.3 * np.sin(2 * np.pi * 220 * place / RATE), np.zeros(int(0.05 * RATE))]
    return np.concatenate(parts[:-1]).astype(np.float32)


def made_up(count: int, seed: int) -> list[Asked]:
    """Turns that end with a token of their own, and others that do not."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        groups = int(rng.integers(3, 9))
        tokens = np.concatenate(
            [rng.integers(0, 50, (groups, 2)), rng.integers(1024, 1090, (groups, 3))], 1
        )
        end = int(rng.random() < 0.5)
        tokens[-1, 0] = 700 if end else 5
        kind = int(rng.integers(len(KINDS)))
        tokens[:, 1] = 100 + kind
        rows.append(Asked(tokens.reshape(-1), end if kind == 0 else UNKNOWN, kind))
    return rows


def test_speech_is_broken_off_where_it_is_quiet() -> None:
    speech = words(0.5, 0.5)
    assert abs(quiet_place(speech, 0.5) / RATE - 0.525) < 0.03


def test_a_clip_is_asked_about_at_the_end_of_every_word_and_ends_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(moments, "ROUGH", 0.0)
    monkeypatch.setattr(moments, "PAUSED", 0.0)
    speech = words(0.4, 0.3, 0.4, 0.5)
    text = "One two three four."
    (clip,) = broken(speech, text, np.random.default_rng(0))
    places = [question.place for question in clip.questions]
    said = [quiet_place(speech, share) for share in word_ends(text)]
    lead = places[0] - said[0]
    assert places == [lead + place for place in (*said, len(speech), len(speech))]
    assert [question.end for question in clip.questions] == [False, False, False, True, True]
    assert all(len(question.quiet) for question in clip.questions)


def test_a_pause_between_two_words_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "ROUGH", 0.0)
    rng = np.random.default_rng(0)
    speech = words(0.5, 0.5)
    monkeypatch.setattr(moments, "PAUSED", 0.0)
    (at_once,) = broken(speech, "Hello there.", rng)
    monkeypatch.setattr(moments, "PAUSED", 1.0)
    (paused,) = broken(speech, "Hello there.", rng)
    between = [one.questions[-1].place - one.questions[0].place for one in (at_once, paused)]
    assert between[1] - between[0] >= moments.PAUSE[0] * RATE - 1
    assert [question.end for question in paused.questions] == [False, True, True]


def test_what_a_room_distorts_is_heard_anew_for_each_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(moments, "ROUGH", 1.0)
    clips = broken(words(0.4, 0.3, 0.4, 0.5), "One two three four.", np.random.default_rng(0))
    assert len(clips) == moments.ROUGH_BREAKS + 1
    assert [clip.questions[0].end for clip in clips] == [False, False, True]
    assert all(clip.questions[0].place == len(clip.wave) for clip in clips)


def test_a_clip_breaks_where_its_words_end() -> None:
    assert word_ends("Set a timer.") == pytest.approx([3 / 12, 5 / 12])
    assert word_ends("Stop.") == []


def test_a_question_is_heard_as_a_stream_hears_it_that_is_asked_there() -> None:
    clips = broken(words(0.4, 0.3, 0.5), "One two three.", np.random.default_rng(1))
    rows = tokenise(clips, ears())
    questions = [(clip, question) for clip in clips for question in clip.questions]
    assert len(rows) == len(questions)
    for row, (clip, question) in zip(rows, questions, strict=True):
        stream = ears().stream()
        ids = stream.push(clip.wave[: question.place])
        ids += stream.push(question.quiet) if len(question.quiet) else []
        ids += stream.flush()
        assert (row.tokens + ears().audio_offset).tolist() == ids
        assert row.end == int(bool(question.end))


def test_coughs_differ_and_what_is_no_turn_has_its_kind() -> None:
    rng = np.random.default_rng(1)
    assert np.abs(cough(rng)).max() == pytest.approx(0.5, rel=0.01)
    assert {disturbance(words(1.0), rng).kind for _ in range(20)} == {KINDS.index("noise")}
    assert [question.end for question in disturbance(words(1.0), rng).questions] == [None]
    assert len(set(BACKCHANNELS)) == len(BACKCHANNELS) >= 20


def test_moments_are_kept_as_they_were(tmp_path: Path) -> None:
    rows = made_up(20, 3)
    save(rows, tmp_path / "rows.npz")
    for kept, row in zip(load(tmp_path / "rows.npz"), rows, strict=True):
        assert np.array_equal(check_groups(kept.tokens), row.tokens)
        assert (kept.end, kept.kind) == (row.end, row.kind)


def test_padding_changes_nothing() -> None:
    head = TurnHead().eval()
    rows = [row for row in made_up(30, 4) if row.end != UNKNOWN][:2]
    short, long = sorted(rows, key=lambda row: len(row.tokens))
    together = losses(head, [short, long])
    groups, lengths, _, _ = batch_of([short, long])
    assert groups.shape[1] == lengths.max()
    end, _, _ = head(groups)
    alone, _, _ = head(torch.from_numpy(short.tokens).view(1, -1, GROUP_TOKENS))
    assert end[0, lengths[0] - 1].item() == pytest.approx(alone[0, -1].item(), abs=1e-5)
    assert together.isfinite()


def test_a_batch_in_which_no_end_is_asked_for_teaches_the_kinds() -> None:
    hums = [row for row in made_up(60, 4) if row.end == UNKNOWN]
    head = TurnHead()
    loss = losses(head, hums)
    loss.backward()
    assert loss.isfinite()
    assert head.kind.weight.grad is not None
    assert head.kind.weight.grad.abs().sum() > 0


def test_what_is_said_to_end_an_answer_is_whole_and_is_speech() -> None:
    rng = np.random.default_rng(0)
    clips = [interruption(words(0.3), rng) for _ in range(60)]
    assert {KINDS[clip.kind] for clip in clips} == {"speech"}
    ends = [question.end for clip in clips for question in clip.questions]
    assert False not in ends
    assert 0 < ends.count(True) < 30, "else all that is short would be an end"
    said = {utterance.text for utterance in interjection_plan()}
    assert said == {*BACKCHANNELS, *INTERRUPTIONS}
    assert not {*BACKCHANNELS} & {*INTERRUPTIONS}


def test_it_learns_what_tells_an_end_from_a_break_and_the_kinds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = train_head(made_up(600, 0), torch.randn(AUDIO_CODES, WIDTH), epochs=10)
    measured = report(head, made_up(200, 9))
    assert measured["auc"] > 0.95
    assert 0.3 < measured["auc of length alone"] < 0.7
    assert measured["backchannel known for it"] > 0.9
    assert measured["noise known for it"] > 0.9
    export(head, measured, tmp_path)
    assert (tmp_path / WEIGHTS).stat().st_size < 800_000


def test_tokens_that_sound_alike_begin_alike() -> None:
    rng = np.random.default_rng(1)
    linguistic, semantic = (rng.standard_normal((n, 60)).astype(np.float32) for n in (1024, 4096))
    linguistic[7] = linguistic[3] + 0.01 * linguistic[7]
    vectors = vectors_of(linguistic, semantic)
    assert vectors.shape == TurnHead().embed.weight.shape
    assert vectors.std() == pytest.approx(1.0, abs=0.01)
    near, others = (vectors[3] - vectors[7]).norm(), (vectors[3] - vectors[:1024]).norm(dim=1)
    assert near < 0.1 * others.median()
    barely_trained = train_head(made_up(8, 0), vectors, epochs=1)
    assert (barely_trained.embed.weight - vectors).abs().median() < 0.01


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    assert area(np.array([0.9, 0.6]), np.array([0.6, 0.1])) == pytest.approx(0.875)


def test_what_the_bundle_says_of_itself_is_what_pack_writes() -> None:
    assert (nano_path() / "aqaa.toml").read_text(encoding="utf-8") == described(nano_path())
