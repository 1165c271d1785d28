"""Outputs of jobs on tiny models, made once, and a way to let them answer rows in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finetune_api.predict import PredictConfig, PredictReport
from finetune_trainer.predict.command import main
from support.attempts import Bench
from support.models import chats, mails, tiny_bert, tiny_llama, write_jsonl
from support.s3 import moto, s3_credentials

__all__ = ["moto", "s3_credentials"]
TEST = mails(60, seed=77)


@dataclass(frozen=True)
class Predicted:
    """What the step said and wrote."""

    code: int
    last: PredictReport
    rows: list[dict[str, Any]]

    @property
    def said(self) -> str:
        assert self.last.problem is not None
        return f"{self.last.problem.message} | {self.last.problem.hint}"


Predict = Callable[..., Predicted]


@pytest.fixture
def predict(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Predict:
    def run(output: Path | str, rows: Path | str, **more: Any) -> Predicted:
        target = tmp_path / "answers.jsonl"
        target.unlink(missing_ok=True)
        config = PredictConfig(
            output=output if isinstance(output, str) else output.as_uri(),
            rows=rows if isinstance(rows, str) else rows.as_uri(),
            target=str(target),
            scratch=str(tmp_path),
            device="cpu",
            **more,
        )
        capfd.readouterr()
        code = main(config)
        lines = capfd.readouterr().out.splitlines()
        found = [json.loads(line) for line in target.read_text().splitlines()] if target.exists() else []
        return Predicted(code, PredictReport.model_validate_json(lines[-1]), found)

    return run


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of outputs: full, lora, merged (of a classifier), chat."""
    root = tmp_path_factory.mktemp("outputs")
    bert, llama = tiny_bert(root / "bert"), tiny_llama(root / "llama")
    train = write_jsonl(root / "train.jsonl", mails(200, seed=1))
    test = write_jsonl(root / "test.jsonl", TEST)
    said = write_jsonl(root / "chats.jsonl", chats(40, seed=1))

    def job(name: str, **spec: Any) -> Path:
        plain = {
            "task": "text-classification",
            "model": {"uri": bert.as_uri()},
            "data": {"train": {"uri": train.as_uri()}, "test": {"uri": test.as_uri()}},
            "output": {"uri": (root / name / "out").as_uri()},
            "training": {"maxSteps": 30, "globalBatchSize": 16, "learningRate": 1e-2, "maxLength": 24},
        }
        bench = Bench(root / name, plain | spec)
        bench.prepare()
        bench.attempt()
        return root / name / "out"

    lora = {"type": "lora", "lora": {"rank": 4}}
    return {
        "full": job("full", method={"type": "full"}),
        "lora": job("lora", method=lora),
        "merged": job("merged", method=lora, output={"uri": (root / "merged" / "out").as_uri(), "merge": True}),
        "chat": job(
            "chat",
            task="causal-lm",
            model={"uri": llama.as_uri()},
            data={"train": {"uri": said.as_uri()}},
            training={"maxSteps": 2, "globalBatchSize": 8},
            method=lora,
        ),
    }


@pytest.fixture
def copied(tmp_path: Path, outputs: dict[str, Path]) -> Path:
    """A copy of the classifier's output, to be spoilt."""
    return shutil.copytree(outputs["full"], tmp_path / "copy")
