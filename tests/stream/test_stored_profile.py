"""A profile and a data manifest that an earlier version stored are read as they were meant, and written alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import zstandard

from finetune_trainer.storage import location
from finetune_trainer.stream import load_profile
from finetune_trainer.stream.manifest import DataManifest
from finetune_trainer.stream.profile import MANIFEST_KEY, PROFILE_KEY, Profile, order_digest, save_profile
from finetune_trainer.stream.splits import intervals_of, part_of, split_blocks
from support.jobs import job_config

STORED = Path(__file__).parent / "stored"
PROFILE, MANIFEST = STORED / "profile.json", STORED / "manifest.json.zst"


def test_a_stored_profile_and_manifest_are_read_and_written_alike(tmp_path: Path) -> None:
    for stored, key in ((PROFILE, PROFILE_KEY), (MANIFEST, MANIFEST_KEY)):
        (tmp_path / "old" / key).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(stored, tmp_path / "old" / key)
    old, new = (location((tmp_path / name).as_uri(), job_config(tmp_path).storage) for name in ("old", "new"))
    manifest, profile = load_profile(old, "job-1")
    save_profile(new, manifest, profile)
    assert new.get(PROFILE_KEY) == PROFILE.read_bytes()
    plain = zstandard.ZstdDecompressor().decompressobj
    assert plain().decompress(new.get(MANIFEST_KEY)) == plain().decompress(MANIFEST.read_bytes())


def test_a_stored_profile_has_the_rows_and_the_order_that_it_had(tmp_path: Path) -> None:
    profile = Profile.from_json(json.loads(PROFILE.read_text()))
    manifest = DataManifest.from_json(
        json.loads(zstandard.ZstdDecompressor().decompressobj().decompress(MANIFEST.read_bytes()))
    )
    data = {
        "train": {"uri": "file:///data/mails/*"},
        "validation": {"fraction": 0.2},
        "test": {"uri": "file:///data/test/*"},
    }
    config = job_config(tmp_path, data=data)
    assert manifest.digest == profile.data.manifest_digest
    assert order_digest(manifest, profile.columns, profile.bad, intervals_of(config.data)) == profile.digest
    for split in ("train", "validation", "test"):
        interval = part_of(split, config.data)
        assert interval is not None
        rows = sum(block.rows for block in split_blocks(manifest, profile.bad, interval))
        assert rows == getattr(profile.data, f"{split}_rows")
