"""The other side of trainer_baseline.py: transformers' Trainer on the same rows in the same order. One JSON line at the
end.

`default` pads every row to the length, as transformers' own example scripts do unless told otherwise; `tuned` pads to
the longest row of each batch. `seconds` are those from the first row that is tokenized to the end of the last step.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from hf_arguments import training_arguments
from torch.utils.data import SequentialSampler
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    default_data_collator,
)


class InOrder(Trainer):
    """Takes the rows as they come: they are shuffled already."""

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        return SequentialSampler(self.train_dataset)


class Stamps(TrainerCallback):
    """The time of each step's end."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.times.append(time.time())


def main() -> None:
    """Train, save, and tell the stamps."""
    parser = argparse.ArgumentParser()
    for name in ("model", "rows", "output"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    for name in ("batch", "length", "threads", "seed"):
        parser.add_argument(f"--{name}", required=True, type=int)
    parser.add_argument("--rate", required=True, type=float)
    parser.add_argument("--warmup", required=True, type=int)
    parser.add_argument("--kind", required=True, choices=("default", "tuned"))
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--trained", default="", help="beginnings of the names of trained weights, by commas; else all")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    began = time.time()
    rows = [json.loads(line) for line in given.rows.open()]
    labels = sorted({row["label"] for row in rows})
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    padding: Any = "max_length" if given.kind == "default" else False
    data = [
        {
            **tokenizer(row["body"], truncation=True, max_length=given.length, padding=padding),
            "label": labels.index(row["label"]),
        }
        for row in rows
    ]
    torch.manual_seed(given.seed)
    model = AutoModelForSequenceClassification.from_pretrained(given.model, num_labels=len(labels))
    for name, weight in model.named_parameters() if given.trained else ():
        weight.requires_grad_(name.startswith(tuple(given.trained.split(","))))
    stamps = Stamps()
    trainer = InOrder(
        model=model,
        args=training_arguments(given, warmup_steps=given.warmup),
        train_dataset=data,
        data_collator=default_data_collator if given.kind == "default" else DataCollatorWithPadding(tokenizer),
        callbacks=[stamps],
    )
    loss = trainer.train().training_loss
    trainer.save_model()
    print(json.dumps({"times": stamps.times, "loss": loss, "seconds": stamps.times[-1] - began}))


if __name__ == "__main__":
    main()
