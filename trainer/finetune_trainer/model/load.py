"""Load a model with its task's head from a folder of safetensors, and refuse one whose weights do not fill it.

The class is imported directly (transformers' Auto classes import far more). New weights, of a classification head, come
from spec.training.seed, so that every rank and every attempt starts from the same ones. Nothing is left to chance
weights silently: a missing or misfitting tensor anywhere but in the head is an error (I8).
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from finetune_api.exits import JobError, Reason
from finetune_trainer.failures import disk, memory
from finetune_trainer.model.dropout import override_dropout
from finetune_trainer.model.facts import FIELD, architecture, fitting, read_config
from finetune_trainer.model.head import ANEW, HeadPolicy, base_name
from finetune_trainer.model.labels import head_labels, matches
from finetune_trainer.model.pads import after_building, before_building
from finetune_trainer.model.pooling import Pooled
from finetune_trainer.model.weights import Stored, read_tensors

FORMATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Number formats in safetensors' words."""

DRAWS = ("normal_", "uniform_", "kaiming_uniform_", "xavier_uniform_", "trunc_normal_")
"""By name: transformers puts guards of its own in the place of torch's."""


def load_model(
    folder: Path,
    head: HeadPolicy,
    *,
    labels: Sequence[str] | None,
    seed: int,
    pad_id: int,
    dtype: torch.dtype = torch.float32,
    dropout: float | None = None,
) -> Any:
    """The model in train mode on the CPU.

    `labels`: the classes in the order of the outputs, for a head that tells classes apart. `dropout`: in place of the
    model's own.
    """
    cls, config = _class_for(folder, head, labels, pad_id)
    if dropout is not None:
        override_dropout(config, dropout)
    torch.manual_seed(seed)
    with _loading(cls):
        model, info = cls.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    _check_filled(info, model, head, bare=head.pooled is not None)
    hold_statistics(model)
    if head.pooled:
        return pooled_model(model, head.pooled, seed=seed, dropout=dropout).train()
    after_building(model, head, pad_id)
    if head.is_new:
        keep_head(model, folder, head, labels, seed)
    return model.train()


def empty_model(folder: Path, head: HeadPolicy, stored: Mapping[str, Stored]) -> tuple[Any, list[str]]:
    """The model as the workers will have it, without a weight, from what its files hold; and the names of weights that
    have no use in it. Only small files are read. Raises JobError where a worker would."""
    cls, config = _class_for(folder, head, ("a", "b"), 0)  # two classes stand for any
    weights = {
        name: torch.empty(s.shape, dtype=FORMATS.get(s.dtype, torch.uint8), device="meta") for name, s in stored.items()
    }
    with _loading(cls):
        model, info = cls.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            dtype=torch.float32,
            device_map={"": "meta"},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    _check_filled(info, model, head, bare=head.pooled is not None)
    unused = sorted(str(name) for name in info["unexpected_keys"])
    if head.pooled:
        with _PlainMeta():
            model = pooled_model(model, head.pooled)
    return model, unused


def pooled_model(trunk: Any, wanted: Pooled, *, seed: int = 0, dropout: float | None = None) -> Any:
    """The trunk with a new head from the seed, on what it is pooled to."""
    from finetune_trainer.model.pooled import PooledModel  # it brings more of transformers

    return PooledModel(trunk, wanted, seed=seed, dropout=dropout)


def _class_for(folder: Path, head: HeadPolicy, labels: Sequence[str] | None, pad_id: int) -> tuple[Any, Any]:
    """The class, and the config to make it with."""
    found = architecture(read_config(folder), head)
    try:
        cls = getattr(importlib.import_module(found.module), found.class_name)
    except ImportError as error:
        raise JobError(
            Reason.UNSUPPORTED_MODEL, f"{found.class_name} needs a package that is not here: {error}", field=FIELD
        ) from None
    with _loading(cls):
        config = cls.config_class.from_pretrained(folder, local_files_only=True, **head.config(labels or ()))
    before_building(cls, config, head, pad_id)
    if head.writes or (head.pooled and getattr(config, "use_cache", False)):
        config.use_cache = False
    return cls, config


@contextlib.contextmanager
def _loading(cls: Any) -> Iterator[None]:
    """Whatever transformers says against a model's files is the model's fault."""
    try:
        with _quiet_loading(), _PlainMeta():
            yield
    except (JobError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if memory.ran_out(error) or disk.is_full(error):
            raise  # nothing is wrong with the model
        message = f"the model cannot be loaded as {cls.__name__}: {type(error).__name__}: {error}"
        raise JobError(Reason.UNSUPPORTED_MODEL, message[:900], field=FIELD) from error


def reload(folder: Path, cls: Any, device: torch.device, *, bare: bool = False) -> Any:
    """What was written to this folder, in float32 and eval mode. Raises JobError where it is not whole.

    `bare`: it is a trunk, and may have come without a pooler.
    """
    with _loading(cls):
        model, info = cls.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    _check_filled(info, model, bare=bare)
    return model.to(device).eval()


def _check_filled(info: dict[str, Any], model: Any, head: HeadPolicy | None = None, *, bare: bool = False) -> None:
    """Every weight comes from the files (but for those of a new `head`), and every layer in the files has its place."""
    missing, misfit = ({str(k) for k in info["missing_keys"]}, {str(k[0]) for k in info["mismatched_keys"]})
    lost = missing | misfit
    if bare:
        lost = without_pooler(model, lost)
    elif head is not None and (head.is_new or head.rebuilt):
        base = base_name(model)
        spare = {name for name in lost if head.may_lack(name, base)}
        if head.rebuilt:
            spare -= misfit | _output_weights(model)
            setattr(model, ANEW, sorted(spare))
        lost -= spare
        _check_same_place(lost, {str(key) for key in info["unexpected_keys"]}, base, type(model).__name__, head)
    if lost:
        some = ", ".join(sorted(lost)[:3])
        raise JobError(
            Reason.UNSUPPORTED_MODEL,
            f"{len(lost)} weights of {type(model).__name__} are missing or have another shape in the model's files"
            f" ({some}, …)",
            field=FIELD,
            hint="Choose a model whose files hold this architecture whole."
            + (
                " It was saved without its output layer."
                if all("lm_head" in n or "embed_out" in n for n in lost)
                else ""
            ),
        )
    kinds = {re.sub(r"\d+", "#", name) for name in model.state_dict()}
    if more := sorted(
        str(k) for k in info["unexpected_keys"] if "." in str(k) and re.sub(r"\d+", "#", str(k)) in kinds
    ):
        raise JobError(
            Reason.UNSUPPORTED_MODEL,
            f"the model's files hold layers that its config.json leaves out: {len(more)} weights"
            f" ({', '.join(more[:2])}, …)",
            field=FIELD,
            hint="Correct the number of layers in config.json; without them the model computes something else.",
        )


def without_pooler(trunk: Any, lost: set[str]) -> set[str]:
    """Those of the lost weights that matter. A pooler that the files lack is taken out of the model, which then answers
    without: else it would be written with weights that nobody learned.
    """
    if not any(name.startswith("pooler.") for name in lost):
        return lost
    trunk.pooler = None
    return {name for name in lost if not name.startswith("pooler.")}


def _output_weights(model: Any) -> set[str]:
    """Names of the output layer's weights, without its bias: the embeddings' own, if files may come without them."""
    output = model.get_output_embeddings()
    return {f"{name}.weight" for name, module in model.named_modules() if module is output}


def _check_same_place(lost: set[str], unused: set[str], base: str, class_name: str, head: HeadPolicy) -> None:
    """Some classes of transformers keep the base elsewhere than the others of their family, and do not find it in files
    that one of these wrote. They would start from random weights wherever else such a base is loaded: with an adapter.
    """
    places = {name.partition(".")[0] for name in unused}
    other = next((o for o in places if lost <= {base + name.removeprefix(o) for name in unused}), None)
    if lost and other:
        raise JobError(
            Reason.UNSUPPORTED_MODEL,
            f"transformers' {class_name} looks for the base's weights under {base!r}, and the model's files have them"
            f" under {other!r}: it would find none of them",
            field=FIELD,
            hint=fitting(head),
        )


def keep_head(model: Any, folder: Path, head: HeadPolicy, labels: Sequence[str] | None, seed: int) -> None:
    """Bring the rows of the base's trained output layer to the classes of the same names; other classes start from the
    seed. So does a layer that some other task has trained, which often has the same name and sometimes the same shape.
    """
    config, place = read_config(folder), output_layer(model)
    if place is None or (labels is None and head.belongs_to(config.get("architectures") or ())):
        return
    name, layer = place
    known = head_labels(config, head)
    tensors = {f"{name}.{part}": tensor for part, tensor in layer.named_parameters(recurse=False)}
    stored = read_tensors(folder, tensors.keys())
    theirs = {n: t for n, t in stored.items() if len(t) == len(known)}
    if not theirs and all(t.shape != tensors[n].shape for n, t in stored.items()):
        return  # nothing of theirs has come into ours
    found, draw = matches(labels or (), known), torch.Generator().manual_seed(seed)
    spread = float(getattr(model.config, "initializer_range", None) or 0.02)
    with torch.no_grad():
        for full, tensor in tensors.items():
            fresh = (
                torch.randn(tensor.shape, generator=draw) * spread if tensor.dim() > 1 else torch.zeros(tensor.shape)
            )
            for ours, row in found.items() if full in theirs else ():
                fresh[ours] = theirs[full][row]
            tensor.copy_(fresh)


def output_layer(model: Any) -> tuple[str, Any] | None:
    """The last linear layer of a classifier, with its name: it has one row a class."""
    inside = {id(module) for module in model.get_submodule(base_name(model)).modules()}
    rows = [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and id(m) not in inside]
    rows = [(n, m) for n, m in rows if m.out_features == model.config.num_labels]
    return rows[-1] if rows else None


class _PlainMeta(TorchFunctionMode):
    """transformers builds a model of tensors without storage, and fills it afterwards. For two of the things that it
    asks of these, random weights and an empty copy elsewhere, torch imports sympy (2 s); both have a plain answer."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensor = args[0] if args else kwargs.get("tensor")
        if isinstance(tensor, torch.Tensor) and tensor.is_meta:
            if getattr(func, "__name__", "") in DRAWS:
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


def hold_statistics(model: Any) -> None:
    """Batch norms keep the statistics that they came with, in training too: a row's output must not hang on the rows
    beside it (I1), and the few rows of a micro-batch tell them badly. Scale and shift are trained like any weight.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
            module.train = lambda mode=True, module=module: module


def token_embeddings(model: Any) -> int:
    """How many tokens the model knows; 0 where its input is none."""
    try:
        return len(model.get_input_embeddings().weight)
    except (AttributeError, NotImplementedError):  # transformers' words for a model that reads no tokens
        return 0


def parameter_counts(model: Any) -> tuple[int, int]:
    """All weights, and those that are trained; shared ones once."""
    return sum(p.numel() for p in model.parameters()), sum(p.numel() for p in model.parameters() if p.requires_grad)
