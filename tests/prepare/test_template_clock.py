"""Chat templates that write today's date write the day of the prepare step, however late a run is resumed."""

from __future__ import annotations

import dataclasses
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from transformers.utils import chat_template_utils

from finetune_api.run import StorageAccess
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.storage import location
from finetune_trainer.stream import load_profile
from finetune_trainer.stream.profile import Profile
from finetune_trainer.train.data import TrainingData
from support.attempts import Bench
from support.chat_templates import DATED
from support.jobs import job_config
from support.models import chats, tiny_llama, write_jsonl

CHAT = [{"role": "user", "content": "what day is it?"}]
CLOCK = "%d %B %Y, %H:%M:%S"


def move(clock: pytest.MonkeyPatch, ahead: timedelta) -> None:
    """What templates would take for the present, so much later."""

    class Moved(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Moved:
            return cls.fromtimestamp((datetime.now(tz) + ahead).timestamp(), tz)

    clock.setattr(chat_template_utils, "datetime", Moved)


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("dated"), template=DATED)


def test_resumed_tomorrow_the_tokens_are_the_same(tmp_path: Path, dated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", chats(24))
    bench = Bench(
        tmp_path,
        {
            "task": "causal-lm",
            "model": {"uri": dated.as_uri()},
            "data": {"train": {"uri": rows.as_uri()}},
            "training": {"maxSteps": 2, "globalBatchSize": 4},
        },
    )
    bench.prepare()
    _, profile = load_profile(location((tmp_path / "out").as_uri(), StorageAccess()))
    assert profile.moment is not None
    assert abs(profile.moment - datetime.now(UTC)) < timedelta(minutes=5)
    written = load_tokenizer(dated, profile.moment).render(CHAT)
    assert f"Today is {profile.moment.strftime(CLOCK)}." in written
    move(monkeypatch, timedelta(days=1))
    assert load_tokenizer(dated).render(CHAT) != written, "the clock was moved"
    texts: list[str] = []
    encode = TrainingData.encode

    def watched(self: TrainingData, row: Any, *where: Any) -> Any:
        (found,) = encode(self, row, *where)
        texts.append(self.tokenizer.decode(found.input_ids))
        return (found,)

    monkeypatch.setattr(TrainingData, "encode", watched)
    bench.attempt()
    said = profile.moment.strftime(CLOCK)
    assert texts
    assert all(f"Today is {said}." in text for text in texts)


def test_a_second_prepare_step_of_the_job_keeps_the_moment(folder: Path, dated: Path, run: Any) -> None:
    shutil.rmtree(folder / "model")
    shutil.copytree(dated, folder / "model")
    write_jsonl(folder / "data" / "a.jsonl", chats(20))
    first = run(job_config(folder, task="causal-lm"))
    marker = folder / "out" / "job.json"
    assert first.now is not None
    marker.write_text(marker.read_text().replace(first.now[:10], "2031-05-06"))
    write_jsonl(folder / "data" / "b.jsonl", chats(20, seed=1))
    assert run(job_config(folder, task="causal-lm")).now[:10] == "2031-05-06"


def test_a_profile_from_before_there_was_a_moment_is_read(folder: Path, dated: Path, run: Any) -> None:
    shutil.rmtree(folder / "model")
    shutil.copytree(dated, folder / "model")
    write_jsonl(folder / "data" / "a.jsonl", chats(20))
    profile = run(job_config(folder, task="causal-lm"))
    assert Profile.from_json(profile.to_json()) == profile
    old = {k: v for k, v in profile.to_json().items() if k not in ("now", "ends", "labelNames")}
    read = Profile.from_json(old)
    assert (read.now, read.moment, read.ends, read.label_names) == (None, None, None, None)
    assert dataclasses.replace(read, now=profile.now, ends=profile.ends) == profile
