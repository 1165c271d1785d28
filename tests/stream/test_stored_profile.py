"""A profile and a data manifest that an earlier version stored are read as they were meant, and written alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zstandard

from finetune_api.exits import JobError
from finetune_trainer.storage import location
from finetune_trainer.stream import load_profile
from finetune_trainer.stream.manifest import DataManifest
from finetune_trainer.stream.parts import digest_of
from finetune_trainer.stream.profile import MANIFEST_KEY, PROFILE_KEY, Profile, order_digest, save_profile
from finetune_trainer.stream.split_reader import SplitReader
from finetune_trainer.stream.splits import SplitRows, part_of, split_blocks, taken_of
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


def test_a_job_without_parts_has_the_rows_and_the_order_that_it_always_had(tmp_path: Path) -> None:
    profile = Profile.from_json(json.loads(PROFILE.read_text()))
    manifest = DataManifest.from_json(
        json.loads(zstandard.ZstdDecompressor().decompressobj().decompress(MANIFEST.read_bytes()))
    )
    data = {"train": {"uri": "file:///data/mails/*"}, "test": {"uri": "file:///data/test/*"}}
    config = job_config(tmp_path, data=data)
    assert manifest.digest == profile.data.manifest_digest
    facts = (manifest, profile.columns, profile.bad, taken_of(config.data))
    assert order_digest(*facts) == "4ce4134a7942a32865993187f655356df79901ab3eaabc3a60a91f9e2e6768e5"
    assert order_digest(*facts, 2) == "0312508c8781d81be1e60f4596b65c1a23b66b3fef5ea3fc9100b40482a86609"
    assert order_digest(*facts, 1, digest_of(np.zeros(151, dtype=np.uint8))) != order_digest(*facts)
    for split, rows in (("train", 131), ("test", 20)):
        part = part_of(split, config.data)
        assert part is not None
        source = manifest.sources[part.source]
        blocks = split_blocks(source, SplitRows(source, part, profile.bad.get(part.source, {})))
        assert sum(block.rows for block in blocks) == rows


def test_a_stored_profile_that_held_rows_out_by_their_place_does_not_say_which_rows_there_are(tmp_path: Path) -> None:
    profile = Profile.from_json(json.loads(PROFILE.read_text()))
    data = {"train": {"uri": "file:///data/mails/*"}, "validation": {"fraction": 0.2}}
    manifest = DataManifest.from_json(
        json.loads(zstandard.ZstdDecompressor().decompressobj().decompress(MANIFEST.read_bytes()))
    )
    with pytest.raises(JobError, match="prepared by an earlier version, which held out other rows"):
        SplitReader(job_config(tmp_path, data=data), manifest, profile, "validation")
