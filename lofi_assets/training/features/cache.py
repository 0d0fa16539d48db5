"""Everything that stays frozen, computed once: latents and conditions of every track, targets of further losses.

What belongs here: filling the cache with what is missing, reading it for training. Each kind is a file of its own, so
that editing a prompt never encodes audio again. What does not: the models (`backbones/`), the files (`files`), what
training does with them (`training.trainer.batches`). Imports without torch; a call that finds everything cached never
loads it.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from lofi_assets.audio.decode import AudioError, Decoded, read_audio
from lofi_assets.backbones import Backbone
from lofi_assets.backbones.features import LATENTS, Conditions, Encoders, FeatureError, FeatureJob
from lofi_assets.progress import over
from lofi_assets.training.features.files import (
    FeatureKey,
    exclusive,
    is_sound,
    length_of,
    note_of,
    read_features,
    write_features,
)

if TYPE_CHECKING:
    import numpy as np
    import torch

DECODED_AHEAD = 2
"""Tracks decoded on other cores while one is being encoded; a track of 180 s takes 69 MB."""


@dataclass(frozen=True)
class FeatureRow:
    """Where a track's features are."""

    track_id: str
    key: str
    """`FeatureKey` as text."""
    files: Mapping[str, Path]
    """Kind -> file; tracks with the same text, lyrics or speaker share it."""
    frames: int
    """Latent frames."""
    notes: Mapping[str, str]
    """What was noted beside the features, by name, such as the language of the lyrics."""
    computed: frozenset[str]
    """Kinds that this call computed for this track; the others were there, or are another track's too."""

    @property
    def reused(self) -> bool:
        """Nothing was computed for this track."""
        return not self.computed


@dataclass(frozen=True)
class CachedFeatures:
    """Features of tracks by their keys, as training reads them.

    Every method raises FeatureError: absent or damaged.
    """

    backbone: Backbone
    folder: Path

    def frames(self, key: str) -> int:
        """Latent frames, from the file's header."""
        path = FeatureKey.parse(key).files(self.folder).get(LATENTS)
        if path is None:
            raise self._foreign(key, LATENTS)
        return length_of(path, axis=self.backbone.latents.frame_axis)

    def latents(self, key: str) -> "torch.Tensor":
        """Latents float32, mapped from disk."""
        return self._read(key, "latents")[LATENTS]

    def conditions(self, key: str) -> Conditions:
        """The conditions of the track."""
        return self.backbone.conditions(self._read(key, "condition"))

    def token_counts(self, key: str) -> dict[str, int]:
        """Kind -> tokens of the conditions."""
        return self.backbone.token_counts(self._read(key, "condition"))

    def targets(self, key: str) -> "dict[str, torch.Tensor]":
        """Kind -> targets (frames, width) of further losses, over the whole track."""
        found = self._read(key, "target")
        if not found:
            raise FeatureError(
                "training.ssl_weight is above 0, but the features hold no SSL targets; name ssl_encoders in the "
                "profile and materialise feature_cache again, or set ssl_weight to 0"
            )
        return found

    def _read(self, key: str, role: str) -> "dict[str, torch.Tensor]":
        """The features of a role; of targets those that are there, of others all."""
        files = FeatureKey.parse(key).files(self.folder)
        kinds = {kind: what for kind, what in self.backbone.feature_kinds.items() if what.role == role}
        for kind in kinds.keys() - files.keys():
            if role != "target":
                raise self._foreign(key, kind)
        return {kind: read_features(files[kind], shape=what.shape) for kind, what in kinds.items() if kind in files}

    def _foreign(self, key: str, kind: str) -> FeatureError:
        return FeatureError(
            f"{key!r} names no {kind}, which {self.backbone.architecture} needs; materialise feature_cache again"
        )


@dataclass(frozen=True)
class _Wanted:
    """A job with the files that it needs."""

    job: FeatureJob
    key: FeatureKey
    files: Mapping[str, Path]


_Missing = Mapping[Path, tuple[str, FeatureJob]]
"""File to compute -> its kind, and the first track that needs it."""


def cache_features(
    tracks: Sequence[FeatureJob], *, backbone: Backbone, encoders: Encoders, cache_dir: Path
) -> list[FeatureRow]:
    """Features of every track, computed where missing or damaged. A killed call goes on: each file is whole or absent.

    Features are stored in float32, targets in float16.

    Returns:
        One row per track, in the order given.
    Raises:
        FeatureError: naming the track and the file that could not be encoded.
        SslEncoderError: an SSL encoder cannot be read.
    """
    kinds = backbone.feature_kinds
    with exclusive(cache_dir):
        keys = [FeatureKey(hashes) for hashes in encoders.keys(tracks)]
        wanted = [_Wanted(job, key, key.files(cache_dir)) for job, key in zip(tracks, keys, strict=True)]
        missing: dict[Path, tuple[str, FeatureJob]] = {}
        for track in wanted:
            for kind, path in track.files.items():
                if path not in missing and not is_sound(path, shape=kinds[kind].shape):
                    missing[path] = (kind, track.job)
        _fill_from_audio(missing, backbone, encoders)
        _fill_from_text(missing, backbone, encoders)
    computed: dict[str, set[str]] = {}
    for kind, job in missing.values():
        computed.setdefault(job.track_id, set()).add(kind)
    return [
        FeatureRow(
            track_id=track.job.track_id,
            key=str(track.key),
            files=track.files,
            frames=length_of(track.files[LATENTS], axis=backbone.latents.frame_axis),
            notes=_notes(track, backbone),
            computed=frozenset(computed.get(track.job.track_id, ())),
        )
        for track in wanted
    ]


def decode(track_id: str, audio: Path, *, sha256: str) -> Decoded:
    """A track's audio, once its bytes are what they were when it was hashed.

    Raises:
        FeatureError: unreadable, or another file.
    """
    try:
        decoded = read_audio(audio, root=audio.parent)
    except AudioError as error:
        raise FeatureError(f"{track_id}: {audio} cannot be read ({error}); process the track again") from error
    if decoded.sha256 != sha256:
        raise FeatureError(f"{track_id}: {audio} is not the file its hash was taken of; run processed_tracks again")
    return decoded


def _notes(track: _Wanted, backbone: Backbone) -> dict[str, str]:
    noted = {kind: what.notes for kind, what in backbone.feature_kinds.items() if what.notes and kind in track.files}
    found = {kind: note_of(track.files[kind]) for kind in noted}
    return {name: found[kind].get(name, "") for kind, names in noted.items() for name in names}


def _fill_from_audio(missing: _Missing, backbone: Backbone, encoders: Encoders) -> None:
    """What is heard: each track is decoded once for all that it lacks."""
    kinds = backbone.feature_kinds
    tracks: dict[str, tuple[FeatureJob, dict[str, Path]]] = {}
    for path, (kind, job) in missing.items():
        if kinds[kind].heard:
            tracks.setdefault(job.audio_sha256, (job, {}))[1][kind] = path
    decoded = _decoded_ahead([job for job, _ in tracks.values()])
    for (job, files), audio in zip(over(list(tracks.values()), "encoding audio", unit="track"), decoded, strict=True):
        for kind, array in encoders.listen(audio, files).items():
            _refuse_broken(kind, array, job)
            write_features(files[kind], array, shape=kinds[kind].shape)


def _fill_from_text(missing: _Missing, backbone: Backbone, encoders: Encoders) -> None:
    """What is read."""
    kinds = backbone.feature_kinds
    todo = {path: task for path, task in missing.items() if not kinds[task[0]].heard}
    for path, (kind, job) in over(list(todo.items()), "encoding text", unit="file"):
        array, note = encoders.read(kind, job)
        write_features(path, array, shape=kinds[kind].shape, note=note)


def _refuse_broken(kind: str, array: "np.ndarray", job: FeatureJob) -> None:
    import numpy as np

    if broken := int((~np.isfinite(array)).sum()):
        raise FeatureError(
            f"{job.track_id}: {job.audio}: {broken:,} of {array.size:,} numbers of its {kind} are not finite; "
            "mend its raw file or take it out with `lofi review reject`, and materialise the dataset again"
        )


def _decoded_ahead(jobs: Sequence[FeatureJob]) -> Iterator[Decoded]:
    """The audio of each job in turn; the next ones are decoded meanwhile, since a GPU encodes faster than that."""
    with ThreadPoolExecutor(DECODED_AHEAD) as pool:
        waiting = iter(jobs)

        def started(count: int) -> list[Future[Decoded]]:
            return [
                pool.submit(decode, job.track_id, job.audio, sha256=job.audio_sha256) for job in islice(waiting, count)
            ]

        running = started(DECODED_AHEAD)
        while running:
            audio = running.pop(0).result()
            running += started(1)
            yield audio
