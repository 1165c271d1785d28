"""How transformers' Trainer is run beside ours: same rate and batches, and nothing else than training."""

from __future__ import annotations

import argparse
from typing import Any

from transformers import TrainingArguments


def training_arguments(given: argparse.Namespace, **more: Any) -> TrainingArguments:
    """Of a command's `output`, `epochs`, `batch`, `rate` and `seed`; `more` is what one of them adds."""
    return TrainingArguments(
        output_dir=str(given.output),
        num_train_epochs=given.epochs,
        per_device_train_batch_size=given.batch,
        learning_rate=given.rate,
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=given.seed,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        **more,
    )
