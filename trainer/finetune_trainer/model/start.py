"""Where a new output layer starts: at the best answer that does not look at the row.

Where most outputs are rare, the first hundreds of steps else do nothing but bring all of them down, and Adam's second
moments remember those large gradients for a thousand more, so that little is learned of the rows themselves (Lin et
al. 2017, arXiv 1708.02002, section 4.1, start the bias so).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from finetune_trainer.model.head import HeadPolicy
from finetune_trainer.model.labels import head_labels, matches
from finetune_trainer.model.load import output_layer


def start_at(
    model: Any, outputs: Sequence[float], base: dict[str, Any], head: HeadPolicy, labels: Sequence[str]
) -> None:
    """Set the bias of each output that does not come trained with the base (`base`: its config.json) to that output.

    A layer without a bias stays as it is. `outputs`, `labels`: one each for an output.
    """
    place = output_layer(model)
    bias = place[1].bias if place else None
    if bias is None:
        return
    trained = matches(labels, head_labels(base, head))
    with torch.no_grad():
        for i, value in enumerate(outputs):
            if i not in trained:
                bias[i] = value
