"""What the base is taught: songs that a seed decides, under captions that are true of them and never say lofi."""

from pathlib import Path

import numpy as np
import pytest

from lofi_assets.audio.synth.song import render, render_clean
from lofi_assets.audio.tempo import estimate_tempo
from lofi_assets.demo.base_recipe.corpus import clips, held_out, read_part, steady_clips, write_corpus
from lofi_assets.demo.base_recipe.genres import (
    DRUM_NAMES,
    GENRES,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    SPOKEN_NAMES,
    STEADY_GENRES,
    STEADY_KEYS,
    moods,
    piece,
    true_words,
)
from lofi_assets.demo.base_recipe.settings import CorpusSettings, SteadySettings
from lofi_assets.files.hashing import sha256_file
from lofi_assets.store import CONFIG_DIR
from lofi_assets.styles.prompt_text import PROMPT_CHARACTERS, parse_prompt, prompt_text, split_tags
from lofi_assets.styles.taxonomy import Taxonomy, bpm_of, bpm_tag, load_taxonomy

SEED = 5
OF_LOFI = {
    *("lofi", "lofi hip hop", "lofi house", "chillhop", "jazzhop", "boom bap", "hip hop", "trip hop", "chillout"),
    *("chill", "downtempo", "vaporwave", "vinyl crackle", "tape hiss", "tape saturation", "tape wobble", "dusty"),
    *("low-pass filtered", "muffled", "bitcrushed", "warm", "home recording", "chopped samples", "slowed"),
}
"""Words that a LoRA is to teach."""


@pytest.fixture(scope="module")
def taxonomy() -> Taxonomy:
    return load_taxonomy(CONFIG_DIR)


def test_the_same_seed_and_index_give_the_same_samples_and_another_index_others(taxonomy: Taxonomy) -> None:
    first, again, other = (piece(SEED, index, seconds=3.0, taxonomy=taxonomy) for index in (8, 8, 22))
    assert first == again and first.genre == other.genre
    assert np.array_equal(render_clean(first.song), render_clean(again.song))
    assert not np.array_equal(render_clean(first.song), render_clean(other.song))


def test_every_caption_is_canonical_and_free_of_contradictions(taxonomy: Taxonomy) -> None:
    for index in range(20 * len(GENRES)):
        caption = piece(SEED, index, seconds=30.0, taxonomy=taxonomy).caption
        tags, unknown = parse_prompt(caption, taxonomy)
        assert unknown == () and prompt_text(tags) == caption and len(caption) <= PROMPT_CHARACTERS
        words = split_tags(caption)
        assert not [(a, b) for a in words for b in words if taxonomy.contradicts(a, b)], caption


def test_a_caption_names_who_plays_and_nothing_else(taxonomy: Taxonomy) -> None:
    for index in range(10 * len(GENRES)):
        made = piece(SEED, index, seconds=30.0, taxonomy=taxonomy)
        said = set(split_tags(made.caption))
        said -= {made.genre.tag, *moods(made.song), taxonomy.tempo_word(made.song.bpm)}
        assert said == set(true_words(made.genre, made.song)) - {made.genre.tag}
        song = made.song
        silent = {SPOKEN_NAMES[name] for name in SPOKEN_NAMES if name not in (song.chords, song.lead, song.bass)}
        silent |= {word for words in DRUM_NAMES.values() for word in words} - set(DRUM_NAMES.get(song.drums, ()))
        assert not said & silent


def test_no_caption_holds_a_word_of_lofi(taxonomy: Taxonomy) -> None:
    captions = [piece(SEED, index, seconds=30.0, taxonomy=taxonomy).caption for index in range(20 * len(GENRES))]
    assert not {word for caption in captions for word in split_tags(caption)} & OF_LOFI


def test_every_genre_has_its_turn_between_60_and_150_bpm(taxonomy: Taxonomy) -> None:
    made = [piece(SEED, index, seconds=30.0, taxonomy=taxonomy) for index in range(4 * len(GENRES))]
    assert {found.genre.tag for found in made} == {genre.tag for genre in GENRES}
    assert all(60 <= found.song.bpm <= 150 for found in made)
    assert len({(found.song.key, found.song.mode) for found in made}) > 12


def test_the_tempo_of_a_caption_is_the_one_that_is_measured(taxonomy: Taxonomy) -> None:
    """One song per genre that has a beat; docs/decisions/011 has the rate over more."""
    checked = 0
    for index in range(len(GENRES)):
        made = piece(SEED, index, seconds=20.0, taxonomy=taxonomy)
        bpm = next((found for tag in split_tags(made.caption) if (found := bpm_of(tag))), None)
        if bpm is None or made.song.drums == "none":
            continue
        heard = estimate_tempo(render_clean(made.song), sample_rate=SAMPLE_RATE, tempo_range=made.genre.bpm)
        assert heard is not None and abs(heard.bpm / bpm - 1) < 0.04, (made.caption, heard)
        checked += 1
    assert checked >= 8


def test_a_clean_song_has_neither_hiss_nor_crackle(taxonomy: Taxonomy) -> None:
    """What is left in the fade's last millisecond is silence; on tape there is noise before the first note."""
    song = piece(SEED, 3, seconds=6.0, taxonomy=taxonomy).song
    silent_tail = render_clean(song)[:, -8:]
    assert np.abs(silent_tail).max() < 1e-4
    assert not np.allclose(render(song), render_clean(song))


def test_steady_music_beats_in_whole_latent_frames_and_is_none_of_the_other_music(taxonomy: Taxonomy) -> None:
    steady = [
        clip.piece for clip in steady_clips(Path(), SteadySettings(28), seconds=8.0, seed=SEED, taxonomy=taxonomy)
    ]
    frames = [60 / made.song.bpm * SAMPLE_RATE / SAMPLES_PER_FRAME for made in steady]
    assert np.allclose(frames, np.round(frames)) and len(set(np.round(frames))) > 3
    assert {made.genre.tag for made in steady} == set(STEADY_GENRES)
    assert len({made.song.key for made in steady}) == len(STEADY_KEYS)
    others = clips(Path(), CorpusSettings(clips=28, worn=0, seconds=8.0), seed=SEED, taxonomy=taxonomy)
    assert not {made.song.seed for made in steady} & {clip.piece.song.seed for clip in others}
    assert np.allclose([made.bar_frames for made in steady], 4 * np.array(frames))
    assert {clip.piece.bar_frames for clip in others} == {1}
    unheard = held_out(12, seconds=8.0, seed=SEED, taxonomy=taxonomy)
    assert {made.genre.tag for made in unheard} == set(STEADY_GENRES)
    assert not {made.song.seed for made in unheard} & {made.song.seed for made in steady}
    assert all(bpm_tag(made.song.bpm) in made.caption for made in steady if made.song.drums != "none")


def test_a_corpus_goes_on_where_it_stopped(tmp_path: Path, taxonomy: Taxonomy) -> None:
    settings = CorpusSettings(clips=3, worn=1, seconds=2.0)
    corpus = clips(tmp_path, settings, seed=SEED, taxonomy=taxonomy)
    write_corpus(corpus, peak=settings.peak, folder=tmp_path)
    before = {clip.name: sha256_file(clip.path) for clip in corpus}
    kept = corpus[0].path.stat().st_mtime_ns
    corpus[2].path.unlink()
    write_corpus(corpus, peak=settings.peak, folder=tmp_path)
    assert {clip.name: sha256_file(clip.path) for clip in corpus} == before
    assert corpus[0].path.stat().st_mtime_ns == kept
    assert [clip.worn for clip in corpus] == [False, False, False, True]
    part = read_part(corpus[1], place=0.999, samples=4096)
    assert part.shape == (2, 4096) and part.dtype == np.float32 and np.abs(part).max() <= 1.0


def test_what_a_base_is_judged_on_is_in_no_corpus(taxonomy: Taxonomy) -> None:
    judged = held_out(14, seconds=4.0, seed=SEED, taxonomy=taxonomy)
    corpus = [piece(SEED, index, seconds=4.0, taxonomy=taxonomy) for index in range(200)]
    assert not {found.song.seed for found in judged} & {found.song.seed for found in corpus}
