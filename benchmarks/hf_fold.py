"""The other side of folds.py: transformers' Trainer on the rows outside a fold, evaluated on it. One JSON line at the
end.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from hf_arguments import training_arguments
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer


def main() -> None:
    """Train, evaluate, and tell the figures."""
    parser = argparse.ArgumentParser()
    for name in ("model", "train", "held", "output"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    for name in ("batch", "length", "threads", "seed", "epochs", "head-only"):
        parser.add_argument(f"--{name}", required=True, type=int)
    parser.add_argument("--rate", required=True, type=float)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    train, held = ([json.loads(line) for line in path.open()] for path in (given.train, given.held))
    labels = sorted({row["label"] for row in (*train, *held)})
    tokenizer = AutoTokenizer.from_pretrained(given.model)

    def encoded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {**tokenizer(row["body"], truncation=True, max_length=given.length), "label": labels.index(row["label"])}
            for row in rows
        ]

    torch.manual_seed(given.seed)
    model = AutoModelForSequenceClassification.from_pretrained(given.model, num_labels=len(labels))
    if given.head_only:
        model.base_model.requires_grad_(False)
    warmup = math.ceil(0.06 * given.epochs * math.ceil(len(train) / given.batch))
    trainer = Trainer(
        model=model,
        args=training_arguments(given, per_device_eval_batch_size=given.batch, warmup_steps=warmup),
        train_dataset=encoded(train),
        eval_dataset=encoded(held),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda said: {"accuracy": float((said.predictions.argmax(-1) == said.label_ids).mean())},
    )
    trainer.train()
    found = trainer.evaluate()
    print(json.dumps({"accuracy": found["eval_accuracy"], "loss": found["eval_loss"]}))


if __name__ == "__main__":
    main()
