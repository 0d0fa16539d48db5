"""A dataset version as SimpleTuner trains on it: audio with texts beside it, and a folder that `load_dataset` reads.

    <target>/README.md                    which files are the split, for `datasets.load_dataset(<target>)`
    <target>/<split>/<track>.mp3
    <target>/<split>/<track>.txt          prompt (`caption_strategy: textfile`)
    <target>/<split>/<track>.lyrics       lyrics
    <target>/<split>/metadata.jsonl       the same as columns: `audio`, `prompt`, `tags`, `lyrics`

Names by SimpleTuner's documentation (documentation/quickstart/ACE_STEP.md, HUGGINGFACE_DATASETS.md) and the audio
folders of Hugging Face datasets.
"""

import json
from pathlib import Path

from lofi_assets.dataset.trainer_format import tracks_to_export
from lofi_assets.dataset.versions import DatasetError, audio_path, read_texts
from lofi_assets.files.writing import atomic_folder, copy_file
from lofi_assets.lyrics.text import without_language
from lofi_assets.records import Split

METADATA = "metadata.jsonl"
_README = """\
---
configs:
- config_name: default
  data_files:
  - split: {split}
    path: ["{split}/*.mp3", "{split}/{metadata}"]
---
{count} tracks of the dataset version {version} ({split}).
"""
"""Without it the loader would take the texts beside the audio for the data."""


def export_for_simpletuner(version: Path, target: Path, *, split: Split = "train") -> int:
    """Write a copy of one split, which shares nothing with the version; returns the number of tracks.

    Raises:
        DatasetError: the target is not empty, the split is, or the version lacks a file.
    """
    tracks = tracks_to_export(version, target, split=split)
    with atomic_folder(target.resolve()) as folder:
        audio, rows = folder / split, []
        audio.mkdir()
        for key in (track.track_id for track in tracks):
            try:
                copy_file(audio_path(version, key), audio / f"{key}.mp3")
                prompt, lyrics = read_texts(version, key)
            except OSError as error:
                raise DatasetError(f"{error.filename}: is missing; run: lofi dataset verify {version.name}") from error
            lyrics = without_language(lyrics)
            (audio / f"{key}.txt").write_bytes(prompt.encode())
            (audio / f"{key}.lyrics").write_bytes(lyrics.encode())
            rows.append({"file_name": f"{key}.mp3", "prompt": prompt, "tags": prompt.split(", "), "lyrics": lyrics})
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (audio / METADATA).write_bytes(lines.encode())
        about = _README.format(split=split, metadata=METADATA, count=len(rows), version=version.name)
        (folder / "README.md").write_bytes(about.encode())
    return len(tracks)
