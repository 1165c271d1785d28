"""Load a model for its task from a folder of safetensors, and refuse one whose weights do not fill it.

The class is imported directly (transformers' Auto classes import far more). New weights, of a classification head, come
from spec.training.seed, so that every rank and every attempt starts from the same ones. Nothing is left to chance weights
silently: a missing or misfitting tensor anywhere but in the head is an error (I8).
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import init
from torch.overrides import TorchFunctionMode

from finetune_api.exits import JobError, Reason
from finetune_api.job import Task
from finetune_trainer import disk, memory
from finetune_trainer.model.facts import FIELD, architecture, read_config

HEAD = re.compile(
    r"(^|\.)(classifier|score|pre_classifier|classification_head|classifier_\w+|logits_proj|sequence_summary|pooler)(\.|$)"
)
"""Parts that a classification model may lack in its file: they are learned anew."""

DRAWS = (init.normal_, init.uniform_, init.kaiming_uniform_, torch.Tensor.normal_, torch.Tensor.uniform_)


def load_model(
    folder: Path,
    task: Task,
    *,
    labels: Sequence[str] | None,
    seed: int,
    pad_id: int,
    dtype: torch.dtype = torch.float32,
) -> Any:
    """The model in train mode on the CPU. `labels`: the classes in the order of the outputs, for text-classification."""
    found = architecture(read_config(folder), task)
    try:
        cls = getattr(importlib.import_module(found.module), found.class_name)
    except ImportError as error:
        raise JobError(
            Reason.UNSUPPORTED_MODEL, f"{found.class_name} needs a package that is not here: {error}", field=FIELD
        ) from None
    settings: dict[str, Any] = {}
    if task == "text-classification":
        assert labels
        settings = {
            "num_labels": len(labels),
            "id2label": dict(enumerate(labels)),
            "label2id": {name: i for i, name in enumerate(labels)},
            "problem_type": "single_label_classification",
        }
    torch.manual_seed(seed)
    try:
        config = cls.config_class.from_pretrained(folder, local_files_only=True, **settings)
        if getattr(config, "pad_token_id", None) is None:
            config.pad_token_id = pad_id
        if task == "causal-lm":
            config.use_cache = False
        with _quiet_loading(), _PlainMeta():
            model, info = cls.from_pretrained(
                folder, config=config, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False,
                ignore_mismatched_sizes=True, output_loading_info=True,
            )  # fmt: skip
    except JobError:
        raise
    except Exception as error:
        if memory.ran_out(error) or disk.is_full(error):
            raise  # nothing is wrong with the model
        message = f"the model cannot be loaded as {found.class_name}: {type(error).__name__}: {error}"
        raise JobError(Reason.UNSUPPORTED_MODEL, message[:900], field=FIELD) from error
    _check_filled(info, found.class_name, new_head=task == "text-classification")
    return model.train()


def reload(folder: Path, cls: Any, device: torch.device) -> Any:
    """What was written to this folder, in float32 and eval mode. Raises JobError where it is not whole."""
    with _quiet_loading(), _PlainMeta():
        model, info = cls.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )  # fmt: skip
    _check_filled(info, cls.__name__, new_head=False)
    return model.to(device).eval()


def _check_filled(info: dict[str, Any], class_name: str, *, new_head: bool) -> None:
    lost = {str(k) for k in info["missing_keys"]} | {str(k[0]) for k in info["mismatched_keys"]}
    if new_head:
        lost = {name for name in lost if not HEAD.search(name)}
    if lost:
        some = ", ".join(sorted(lost)[:3])
        raise JobError(
            Reason.UNSUPPORTED_MODEL,
            f"{len(lost)} weights of {class_name} are missing or have another shape in the model's files ({some}, …)",
            field=FIELD,
            hint="Choose a model whose files hold this architecture whole.",
        )


class _PlainMeta(TorchFunctionMode):
    """transformers builds a model of tensors without storage, and fills it afterwards. For two of the things that it asks of
    these, random weights and an empty copy elsewhere, torch imports sympy (2 s); both have a plain answer."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensor = args[0] if args else kwargs.get("tensor")
        if isinstance(tensor, torch.Tensor) and tensor.is_meta:
            if func in DRAWS:
                return tensor
            if func is torch.empty_like and tensor.is_contiguous() and kwargs.keys() <= {"dtype", "device"}:
                return torch.empty(tensor.shape, **{"dtype": tensor.dtype, "device": "meta", **kwargs})
        return func(*args, **kwargs)


@contextlib.contextmanager
def _quiet_loading() -> Any:
    """transformers prints tables of new weights and a progress bar; what matters of them is checked here."""
    from transformers.utils import logging as hf

    level, bars = hf.get_verbosity(), hf.is_progress_bar_enabled()
    hf.set_verbosity_error()
    hf.disable_progress_bar()
    try:
        yield
    finally:
        hf.set_verbosity(level)
        if bars:
            hf.enable_progress_bar()


def parameter_counts(model: Any) -> tuple[int, int]:
    """All weights, and those that are trained; shared ones once."""
    return sum(p.numel() for p in model.parameters()), sum(p.numel() for p in model.parameters() if p.requires_grad)
