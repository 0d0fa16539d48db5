"""A dataset version and what a profile names beside the base -> the tracks to have features of.

Audio, texts, speakers, lyric vocabulary and SSL encoders are found here.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lofi_assets.backbones.features import FeatureJob
from lofi_assets.errors import LofiError
from lofi_assets.files.documents import read_json
from lofi_assets.files.hashing import sha256_file
from lofi_assets.profiles import Profile, ProfileError
from lofi_assets.records import Track
from lofi_assets.store import SPEAKERS, Store
from lofi_assets.styles.prompt_text import prompt_variants
from lofi_assets.tracks.track_table import lossless_masters
from lofi_assets.training.base_model import backbone_for


class SpeakersError(LofiError, ValueError):
    """`speakers.json` cannot be used; the message names the entry and what to do."""


def feature_jobs(store: Store, folder: Path, tracks: Sequence[Track]) -> list[FeatureJob]:
    """One job per track of a dataset version.

    Args:
        folder: of the version.
        tracks: its tracks.
    Raises:
        SpeakersError: see `speaker_files`.
    """
    # The MP3 is the delivery format; training hears the same master without its loss where the profile keeps it.
    masters, speakers = lossless_masters(store), speaker_files(store)
    jobs = []
    for track in tracks:
        key, sha256 = track.track_id, track.audio_sha256 or sha256_file(folder / "audio" / f"{track.track_id}.mp3")
        audio, heard = masters.get(sha256, (folder / "audio" / f"{key}.mp3", sha256))
        prompt, lyrics = (_text(folder / "audio" / f"{key}_{kind}.txt") for kind in ("prompt", "lyrics"))
        jobs.append(FeatureJob(key, audio, heard, prompt, lyrics, speaker=speakers.get(key)))
    return jobs


def reworded(jobs: Sequence[FeatureJob], count: int) -> list[FeatureJob]:
    """The jobs under the other wordings of their prompts, in order; with the prompt as written at most `count` each."""
    return [replace(job, prompt=text) for job in jobs for text in prompt_variants(job.prompt.strip(), count)[1:]]


def speaker_files(store: Store) -> dict[str, Path]:
    """Track id -> speaker file.

    Raises:
        SpeakersError: not an object of strings, or a file that is absent or outside the data root.
    """
    path = store.metadata(SPEAKERS)
    named = read_json(path, default={})
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise SpeakersError(f'{path}: must be an object such as {{"track_id": "speakers/mia.npy"}}')
    files = {track_id: (store.root / name).resolve() for track_id, name in named.items()}
    for track_id, file in files.items():
        if not file.is_file() or not file.is_relative_to(store.root.resolve()):
            raise SpeakersError(f"{path}: {track_id}: {named[track_id]!r} is no file below {store.root}; put it there")
    return files


def lyric_vocabulary(store: Store, profile: Profile) -> Path | None:
    """The vocabulary that the profile names, downloaded if need be; None if it names none.

    Raises:
        VocabularyError: it cannot be had, or is another file than was pinned.
    """
    settings = profile.lyric_vocabulary
    if settings is None:
        return None
    found = backbone_for(profile.base_model).lyric_vocabulary(
        settings.source, sha256=settings.sha256, root=store.root, downloads=store.base_models
    )
    return found.resolve()


def ssl_folders(store: Store, profile: Profile) -> dict[str, Path]:
    """SSL encoder -> its folder.

    Raises:
        ProfileError: no such folder.
    """
    folders: dict[str, Path] = {name: store.root / folder for name, folder in profile.ssl_encoders.items()}
    for name, folder in folders.items():
        if not folder.is_dir():
            raise ProfileError(
                f"config/profiles/{profile.name}.yaml, ssl_encoders.{name}: {folder} is no folder; download it there"
            )
    return folders


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip()
