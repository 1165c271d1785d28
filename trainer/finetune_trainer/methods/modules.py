"""Find a model's head, layers and linear layers by their place and kind, not by a table of architectures."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_trainer.model.head import HeadPolicy, base_name


def head_modules(model: Any, head: HeadPolicy) -> dict[str, Any]:
    """The modules outside the base model (a classifier, the output projection), by name.

    A pooler is part of a new head.
    """
    prefix = base_name(model)
    heads = {name: m for name, m in model.named_children() if name != prefix and any(True for _ in m.parameters())}
    if head.is_new and not head.pooled:
        pooler = getattr(model.get_submodule(prefix), "pooler", None)
        if pooler is not None and any(True for _ in pooler.parameters()):
            heads[f"{prefix}.pooler"] = pooler
    if not heads:
        raise JobError(
            Reason.UNSUPPORTED_MODEL, f"{type(model).__name__} has no head of its own to train", field="spec.method"
        )
    return heads


def layer_list(model: Any) -> tuple[str, Any]:
    """The stack of layers (of stages, where a model has these): the longest list of modules (the first of equals) that
    lies in no other, with its dotted name.
    """
    from torch.nn import ModuleList

    lists: list[tuple[str, Any]] = []
    for name, module in model.named_modules():
        if isinstance(module, ModuleList) and not any(name.startswith(f"{outer}.") for outer, _ in lists):
            lists.append((name, module))
    if not lists:
        raise JobError(Reason.UNSUPPORTED_MODEL, f"{type(model).__name__} has no list of layers", field="spec.method")
    return max(lists, key=lambda item: len(item[1]))


def modules_after(model: Any, layers_name: str) -> dict[str, Any]:
    """Modules that stand after the layers in the model, by name: the siblings of the list and of the modules around it.

    What serves every layer is none of them, wherever it is written down: tables of relative positions, and their norm.
    """
    from torch.nn import Embedding

    found: dict[str, Any] = {}
    path = layers_name.split(".")
    for depth in range(len(path)):
        around = ".".join(path[:depth])
        names = [name for name, _ in model.get_submodule(around).named_children()]
        for name in names[names.index(path[depth]) + 1 :]:
            place = f"{around}.{name}".lstrip(".")
            module = model.get_submodule(place)
            if not isinstance(module, Embedding):
                found[place] = module
    early = _used_before(model, layers_name, found)
    return {place: module for place, module in found.items() if place not in early}


def _used_before(model: Any, layers_name: str, places: Mapping[str, Any]) -> set[str]:
    """Those of the modules that a model of texts asks before it comes to its second layer, as a forward pass tells; it
    ends there. Nothing where the model cannot be tried on two tokens.
    """
    import torch

    layers = model.get_submodule(layers_name)
    seen: set[str] = set()
    if model.main_input_name != "input_ids" or len(layers) < 2:
        return seen

    def reached(*_: Any) -> None:
        raise _SecondLayer

    hooks = [layers[1].register_forward_pre_hook(reached)]
    hooks += [m.register_forward_pre_hook(lambda *_, place=place: seen.add(place)) for place, m in places.items()]
    training = model.training
    try:
        with torch.no_grad(), suppress(_SecondLayer):
            model.eval()(input_ids=torch.zeros((1, 2), dtype=torch.long, device=model.device))
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        return set()  # a family that is not called by ids alone, or not without weights: all goes by place
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return seen


class _SecondLayer(Exception):
    """The forward pass has come as far as it is of interest."""


def without_adapter(model: Any) -> Any:
    """The model below an adapter; one without is its own."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def depths(model: Any, head: HeadPolicy) -> dict[str, int]:
    """How deep each parameter lies, by its name in `named_parameters()`: 0 for what stands before the layers
    (embeddings), then 1 for the first layer and so on; what stands after them (a final norm, a pooler, the head) shares
    the largest number.

    An adapter lies where its layer does. What a method puts beside the model (virtual tokens) is as new as a head and
    counts as it. A weight that is tied lies where it is named first: a tied output projection is the embeddings'.
    Layers that share their weights are one layer. Raises JobError where the model has no list of layers, or no head.
    """
    base = without_adapter(model)
    layers_name, layers = layer_list(base)
    last = len(layers) + 1
    places = {f"{layers_name}.{i}": i + 1 for i in range(len(layers))}
    places |= dict.fromkeys([*modules_after(base, layers_name), *head_modules(base, head)], last)
    found: dict[int, int] = {}
    for name, parameter in base.named_parameters():
        parts = name.split(".")
        around = (".".join(parts[:i]) for i in range(1, len(parts)))
        found[id(parameter)] = max((places[place] for place in around if place in places), default=0)
    return {name: found.get(id(parameter), last) for name, parameter in model.named_parameters()}


def linear_layers(model: Any) -> dict[str, Any]:
    """By name: torch's, and the transposed ones of GPT-2 and its kin."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    return {name: module for name, module in model.named_modules() if isinstance(module, Linear | Conv1D)}


def named(model: Any, name: str) -> list[str]:
    """The modules with this name: the whole of it, or its last parts."""
    return [place for place, _ in model.named_modules() if place == name or place.endswith(f".{name}")]


def near(name: str, names: Iterable[str]) -> str:
    """A hint with the names that are most like this one; parts of them count, and numbers of layers do not."""
    possible = dict.fromkeys(re.sub(r"\.\d+(?=\.|$)", ".*", full) for full in names)
    parts = dict.fromkeys(part for full in possible for part in (full, full.rsplit(".", 1)[-1]) if part != "*")
    found = difflib.get_close_matches(name, parts, n=3, cutoff=0.5) or list(parts)[:6]
    return f"The model has {', '.join(found)}."


def convolutions(model: Any) -> dict[str, Any]:
    """Those over the whole depth of an image, by name."""
    from torch.nn import Conv2d

    return {n: m for n, m in model.named_modules() if isinstance(m, Conv2d) and m.groups == 1}
