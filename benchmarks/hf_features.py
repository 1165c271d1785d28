"""Another side of frozen_trunk.py: features computed once with datasets.map, and a head trained on them. One JSON line
at the end.

As its users write it: batches of rows in their order, padded to the longest of each, without gradients; then a linear
layer on the vectors, in plain torch. `seconds` are those from the first row that is tokenized to the end of the last
step.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModel, AutoTokenizer


def main() -> None:
    """Map, train, and tell the seconds."""
    parser = argparse.ArgumentParser()
    for name in ("model", "rows", "output"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    for name in ("batch", "length", "threads", "seed", "epochs"):
        parser.add_argument(f"--{name}", required=True, type=int)
    parser.add_argument("--rate", required=True, type=float)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = AutoModel.from_pretrained(given.model).eval()
    rows = [json.loads(line) for line in given.rows.open()]
    labels = sorted({row["label"] for row in rows})
    began = time.time()

    def features(batch: dict[str, Any]) -> dict[str, Any]:
        inputs = tokenizer(batch["body"], truncation=True, max_length=given.length, padding=True, return_tensors="pt")
        with torch.inference_mode():
            states = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1)
        return {"vector": ((states * mask).sum(1) / mask.sum(1)).numpy()}

    data = Dataset.from_list(rows).map(features, batched=True, batch_size=given.batch)
    data = data.with_format("torch", columns=["vector"])
    targets = torch.tensor([labels.index(row["label"]) for row in rows])
    head = torch.nn.Linear(model.config.hidden_size, len(labels))
    optimizer = torch.optim.AdamW(head.parameters(), lr=given.rate, weight_decay=0.0)
    losses = []
    for _ in range(given.epochs):
        for start in range(0, len(rows), given.batch):
            vectors = data[start : start + given.batch]["vector"]
            loss = torch.nn.functional.cross_entropy(head(vectors), targets[start : start + given.batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
    print(json.dumps({"loss": sum(losses) / len(losses), "seconds": time.time() - began}))


if __name__ == "__main__":
    main()
