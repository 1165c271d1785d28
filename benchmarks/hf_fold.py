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
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)


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
    train, held = ([json.loads(line) for line in path.read_text().splitlines()] for path in (given.train, given.held))
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
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(given.output),
            num_train_epochs=given.epochs,
            per_device_train_batch_size=given.batch,
            per_device_eval_batch_size=given.batch,
            learning_rate=given.rate,
            warmup_steps=math.ceil(0.06 * given.epochs * math.ceil(len(train) / given.batch)),
            weight_decay=0.0,
            max_grad_norm=1.0,
            seed=given.seed,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        ),
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
