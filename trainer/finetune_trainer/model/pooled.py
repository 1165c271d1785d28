"""A trunk's pooled outputs with a small head: any of transformers' bare models, one vector a row, one or two layers.

It answers as transformers' classifiers do, so objectives, tallies and predictions take it for one. `pooled` stands
apart from `head`, so that vectors which do not change can be computed once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from finetune_api.exits import JobError, Reason
from finetune_trainer.model.pooling import CLS, LAST, LINEAR, MEAN, MLP, OWN, WITH_OWN, Pooled, pooling_of

if TYPE_CHECKING:  # imported when it is asked for: it brings much of transformers
    from transformers.modeling_outputs import SequenceClassifierOutput

NAME = "head.safetensors"
ACTIVATION = "gelu"
DROPOUT = 0.1
"""Before the hidden layer and behind it, as in BERT, where spec.training.dropout says nothing."""
SPREAD = 0.02
"""Of the output layer's first weights, as in transformers."""


class Head(nn.Module):
    """Vectors [rows, inputs] to scores [rows, outputs], by way of `hidden` features where there are any."""

    def __init__(self, inputs: int, outputs: int, hidden: int | None, dropout: float) -> None:
        super().__init__()
        self.hidden = None if hidden is None else nn.Linear(inputs, hidden)
        self.dropout = None if hidden is None else nn.Dropout(dropout)
        self.output = nn.Linear(inputs if hidden is None else hidden, outputs)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """The scores."""
        if self.hidden is None or self.dropout is None:
            return self.output(vectors)  # type: ignore[no-any-return]
        inner = nn.functional.gelu(self.hidden(self.dropout(vectors)))
        return self.output(self.dropout(inner))  # type: ignore[no-any-return]

    @torch.no_grad()
    def draw(self, seed: int) -> None:
        """First weights that hang on the seed alone."""
        draws = torch.Generator().manual_seed(seed)
        for layer, spread in ((self.hidden, None), (self.output, SPREAD)):
            if layer is not None and not layer.weight.is_meta:
                spread = spread or layer.in_features**-0.5
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=draws) * spread)
                layer.bias.zero_()


class PooledModel(nn.Module):
    """`trunk`, a pooling and a `head`; the config is the trunk's, with the names of the outputs."""

    base_model_prefix = "trunk"

    def __init__(self, trunk: Any, wanted: Pooled, *, seed: int = 0, dropout: float | None = None) -> None:
        """`wanted` may leave the pooling open. Raises JobError where it does not fit the trunk."""
        super().__init__()
        self.trunk = trunk
        self.config = trunk.config
        self.main_input_name = trunk.main_input_name
        class_token = any(name.endswith("cls_token") for name, _ in trunk.named_parameters())
        self.pooling = pooling_of(wanted, trunk.config, trunk.main_input_name, class_token=class_token)
        if self.pooling == OWN and _has_learned_pooler(trunk):
            self.pooling = CLS  # as the family's own classifiers: that pooler was learned for another task
        inputs = vector_width(trunk.config)
        hidden = None if wanted.head == LINEAR else wanted.hidden or inputs
        with trunk.device:
            self.head = Head(inputs, trunk.config.num_labels, hidden, DROPOUT if dropout is None else dropout)
        self.head.draw(seed)

    def forward(self, pooled: torch.Tensor | None = None, **inputs: torch.Tensor) -> SequenceClassifierOutput:
        """`.logits`, [rows, outputs], of what the trunk takes; or of vectors that `pooled` gave."""
        from transformers.modeling_outputs import SequenceClassifierOutput

        return SequenceClassifierOutput(logits=self.head(self.pooled(**inputs) if pooled is None else pooled))

    def pooled(self, **inputs: torch.Tensor) -> torch.Tensor:
        """One vector a row, [rows, width], in float32 or better."""
        output = self.trunk(**inputs)
        if self.pooling == OWN:
            return _wide(output.pooler_output).flatten(1)
        return pool(_wide(output.last_hidden_state), inputs.get("attention_mask"), self.pooling)

    @property
    def description(self) -> dict[str, Any]:
        """The head as task.json has it; `Pooled` and the trunk's folder make it anew."""
        layers = (self.head.hidden, self.head.output)
        return {
            "file": NAME,
            "pooling": self.pooling,
            "head": LINEAR if self.head.hidden is None else MLP,
            "inputs": next(layer.in_features for layer in layers if layer is not None),
            "hidden": None if self.head.hidden is None else self.head.hidden.out_features,
            "outputs": self.head.output.out_features,
            "activation": None if self.head.hidden is None else ACTIVATION,
        }

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    @property
    def supports_gradient_checkpointing(self) -> bool:
        """As the trunk."""
        return bool(self.trunk.supports_gradient_checkpointing)

    def gradient_checkpointing_enable(self, **settings: Any) -> None:
        """In the trunk."""
        self.trunk.gradient_checkpointing_enable(**settings)

    def can_generate(self) -> bool:
        """It writes no text."""
        return False

    def get_input_embeddings(self) -> Any:
        """The trunk's."""
        return self.trunk.get_input_embeddings()

    def get_output_embeddings(self) -> None:
        """It has none."""


def pool(states: torch.Tensor, mask: torch.Tensor | None, pooling: str) -> torch.Tensor:
    """One vector a row of `states`: [rows, positions, width], or [rows, width, height, width] of an image's map.

    `mask`: 1 at real positions, [rows, positions]; None: all are.
    """
    if states.dim() > 3:
        states = states.flatten(2).transpose(1, 2)
    if pooling == CLS:
        return states[:, 0]
    if mask is None:
        return states[:, -1] if pooling == LAST else states.mean(1)
    if pooling == LAST:
        places = torch.arange(mask.shape[1], device=mask.device)
        last = (places * (mask > 0)).argmax(1)
        return states[torch.arange(len(states), device=states.device), last]
    assert pooling == MEAN
    real = mask.to(states.dtype).unsqueeze(-1)
    return (states * real).sum(1) / real.sum(1).clamp(min=1.0)


def vector_width(config: Any) -> int:
    """Of a trunk's outputs. Raises JobError where its config does not say."""
    stages = getattr(config, "hidden_sizes", None)
    width = stages[-1] if stages else getattr(config.get_text_config(), "hidden_size", None)
    if not isinstance(width, int):
        message = f"the config of model type {config.model_type!r} does not say how wide its outputs are"
        raise JobError(Reason.UNSUPPORTED_MODEL, message, field="spec.model.uri", hint="Choose another model.")
    return width


def save_head(model: PooledModel, folder: Path) -> None:
    """Its weights, beside the trunk's files."""
    from safetensors.torch import save_file

    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.head.state_dict().items()}
    save_file(weights, folder / NAME, {"format": "pt"})


def with_head_of(trunk: Any, folder: Path, described: Mapping[str, Any]) -> PooledModel:
    """The trunk with the head that `save_head` wrote, in eval mode; `described`: as `PooledModel.description`.

    Raises JobError where they do not fit together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        trunk.config.num_labels = int(described["outputs"])
        model = PooledModel(trunk, asked_for(described))
        model.head.load_state_dict(load_file(folder / NAME))
    except (SafetensorError, OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        message = f"{NAME} does not fit its trunk: {' '.join(str(error).split())}"
        raise JobError(Reason.UNSUPPORTED_MODEL, message[:900], hint="Fetch the output once more.") from None
    return model.to(trunk.device).eval()


def asked_for(described: Mapping[str, Any]) -> Pooled:
    """What gives a model so described."""
    if described["pooling"] not in WITH_OWN or described["head"] not in (LINEAR, MLP):
        raise ValueError(f"pooling {described['pooling']!r} and head {described['head']!r} are not known")
    return Pooled(described["pooling"], described["head"], described["hidden"])


def _wide(states: torch.Tensor) -> torch.Tensor:
    return states.float() if states.dtype in (torch.float16, torch.bfloat16) else states


def _has_learned_pooler(trunk: Any) -> bool:
    pooler = getattr(trunk, "pooler", None)
    return pooler is not None and any(isinstance(module, nn.Linear) for module in pooler.modules())
