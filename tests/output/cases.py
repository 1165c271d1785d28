"""Results of two made-up runs, as rich as real ones."""

from __future__ import annotations

import math
import random

from finetune_api.base import parse
from finetune_api.report import Report, Stage
from finetune_api.run import RunConfig
from finetune_api.status import Best, Checkpoint, DataProfile, Finding, Lengths, Point, Progress, Resolved
from finetune_trainer.output import ClassScore, EventLog, Result, Sample
from finetune_trainer.tasks.base import JobFacts


def config(**changes: object) -> RunConfig:
    """A small classification job with file:// URIs."""
    base = {
        "job": {"name": "mail/spam-filter", "id": "uid-1"},
        "attempt": 1,
        "task": "text-classification",
        "model": {"uri": "hf://org/minilm"},
        "data": {"train": {"uri": "s3://mail/train/*.jsonl.zst"}, "validation": {"fraction": 0.1}},
        "method": {"type": "full"},
        "training": {},
        "evaluation": {},
        "checkpoints": {},
        "output": {"uri": "s3://models/spam-filter"},
        "world": {"workers": 2},
    }
    return parse(RunConfig, base | changes, local=True)


def events(steps: int = 600, every: int = 50) -> EventLog:
    """A run whose loss falls, with an evaluation every so many steps."""
    log, noise = EventLog(), random.Random(7)
    for step in range(1, steps + 1):
        loss = 0.08 + 0.62 * math.exp(-step / (steps / 6)) + abs(noise.gauss(0, 0.04)) * (1 + 2 * math.exp(-step / 60))
        rate = 5e-5 * min(step / (0.06 * steps), (steps - step) / (0.94 * steps))
        log.add(
            "step",
            step,
            loss=loss,
            learningRate=rate,
            gradNorm=abs(noise.gauss(1.2, 0.5)) + (9 if step == 77 else 0),
            rowsPerSecond=21.4,
        )
        if step % every == 0:
            f1 = 0.97 - 0.4 * math.exp(-step / (steps / 7)) - (0.02 if step > 0.8 * steps else 0)
            log.add(
                "evaluation",
                step,
                metrics={
                    "macro-f1": f1,
                    "accuracy": f1 + 0.008,
                    "eval_loss": 0.12 + 0.5 * math.exp(-step / (steps / 5)),
                },
            )
    return log


def classification(**changes: object) -> Result:
    """Spam or not."""
    report = Report(
        job_id="uid-1",
        attempt=1,
        sequence=9,
        time=1767225600.0,
        stage=Stage.EXPORTING,
        progress=Progress(
            step=600, total_steps=600, epoch=3.0, percent=100, loss=0.1, rows_per_second=21.4, tokens_per_second=2740.0
        ),
        evaluation={"macro-f1": 0.948, "accuracy": 0.956, "eval_loss": 0.131},
        test={
            "macro-f1": 0.9612,
            "macro-f1-low": 0.9475,
            "macro-f1-high": 0.9731,
            "accuracy": 0.967,
            "accuracy-low": 0.954,
            "accuracy-high": 0.977,
            "loss": 0.1204,
        },
        best=Best(step=450, metric="macro-f1", value=0.9645),
        history=tuple(Point(step=s, loss=1 / s) for s in range(1, 20)),
        checkpoints=tuple(
            Checkpoint(
                step=s,
                uri=f"s3://models/spam-filter/ckpt/2/{s}",
                bytes=272_000_000,
                digest="ab" * 32,
                time="2026-01-01T00:00:00Z",
                metrics={"macro-f1": 0.96},
                best=s == 450,
            )
            for s in (600, 550, 450)
        ),
        resolved=Resolved(
            epochs=3.0,
            total_steps=600,
            global_batch_size=32,
            micro_batch_size=8,
            learning_rate=5e-5,
            warmup_steps=36,
            max_length=128,
            metric="macro-f1",
            evaluate_every_steps=50,
            columns={"text": "body", "label": "kind"},
            architecture="BertForSequenceClassification",
            parameters=22_714_000,
            trainable_parameters=22_714_000,
            precision="fp32",
            device="cpu",
        ),
        data=DataProfile(
            train_rows=6400,
            validation_rows=640,
            test_rows=1000,
            bad_rows=2,
            objects=8,
            bytes=9_100_000,
            tokens_per_epoch=790_000,
            lengths=Lengths(p50=118, p95=640, max=2210, truncated_fraction=0.31),
            labels=("ham", "spam"),
            label_count=2,
            manifest_digest="cd" * 32,
            findings=(
                Finding(
                    kind="InvalidJson",
                    count=2,
                    file="train/part-3.jsonl.zst",
                    line=517,
                    message="This line is not JSON; it was left out (maxBadRows allows 10).",
                ),
                Finding(
                    kind="Truncated",
                    count=1984,
                    message=(
                        "31 % of the rows are longer than maxLength 128 and were cut; raise spec.training.maxLength."
                    ),
                ),
            ),
        ),
        seconds={
            "import": 5.1,
            "load": 2.2,
            "data": 9.0,
            "train": 561.0,
            "evaluate": 44.0,
            "checkpoint": 3.5,
            "export": 4.0,
        },
    )
    fields: dict[str, object] = {
        "config": config(),
        "report": report,
        "facts": JobFacts({"text": "body", "label": "label"}, ("ham", "spam")),
        "classes": (ClassScore("ham", 0.975, 0.981, 0.978, 689), ClassScore("spam", 0.952, 0.938, 0.945, 311)),
        "confusion": ((676, 13), (19, 292)),
        "attempts": (
            {
                "number": 1,
                "fromStep": 0,
                "lastStep": 310,
                "seconds": {"import": 5.0, "load": 2.1, "data": 5, "train": 300.0, "evaluate": 20},
            },
            {
                "number": 2,
                "fromStep": 300,
                "lastStep": 600,
                "seconds": {
                    "import": 5.1,
                    "load": 2.2,
                    "data": 4.0,
                    "train": 281.0,
                    "evaluate": 24.0,
                    "checkpoint": 3.5,
                    "export": 4.0,
                },
            },
        ),
        "notes": ("the environment differs from that of s3://models/spam-filter/ckpt/1/300: threads: 2 there, 1 here",),
        "versions": {"python": "3.11.7", "torch": "2.15.0", "transformers": "5.23.0"},
    }
    return Result(**(fields | changes))  # type: ignore[arg-type]


def chat(**changes: object) -> Result:
    """A causal-lm job with LoRA and samples."""
    settings = config(
        task="causal-lm",
        model={"uri": "s3://models/smollm2"},
        method={"type": "lora", "lora": {"rank": 16}},
        output={"uri": "s3://models/chat", "merge": True},
        job={"name": "chat/helpful", "id": "uid-2"},
    )
    seen = classification().report.model_copy(
        update={
            "test": {
                "loss": 1.41,
                "loss-low": 1.36,
                "loss-high": 1.46,
                "perplexity": 4.096,
                "perplexity-low": 3.9,
                "perplexity-high": 4.31,
            },
            "best": Best(step=450, metric="loss", value=1.39),
            "job_id": "uid-2",
            "data": DataProfile(train_rows=800, validation_rows=80, test_rows=100, objects=1, bytes=400_000),
        }
    )
    fields: dict[str, object] = {
        "config": settings,
        "report": seen,
        "samples": (
            Sample(
                "<|user|>What is a mail filter?",
                "A A A A A mail mail",
                "It sorts mail into what you want and what you do not.",
                "A program that sorts mail.",
            ),
            Sample("Say hello\nin two lines.", "", "Hello,\nthere."),
        ),
    }
    return Result(**(fields | changes))  # type: ignore[arg-type]
