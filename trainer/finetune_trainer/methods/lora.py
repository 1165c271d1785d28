"""Low-rank adapters by peft on every linear layer but a new head, which is trained whole.

Only the adapters and such a head are trained, checkpointed and written; the base stays as it was. Adapters start at
zero effect, from spec.training.seed.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.method import METHODS
from finetune_api.status import Finding
from finetune_api.tuning import Lora
from finetune_trainer.methods.base import AdapterFormat, Identity, TuningMethod
from finetune_trainer.methods.modules import head_modules, linear_layers
from finetune_trainer.model.head import HeadPolicy

FIELD = "spec.method.lora.targetModules"


def apply(model: Any, settings: Lora, head: HeadPolicy, seed: int) -> Any:
    """The peft model. Raises JobError when targetModules match no linear layer."""
    import torch
    from peft import LoraConfig, get_peft_model

    heads = head_modules(model, head)
    targets = target_names(model, settings, heads)
    targeted = [module for name, module in linear_layers(model).items() if last_part(name) in targets]
    adapters = LoraConfig(
        task_type=head.peft_task or None,
        r=settings.rank,
        lora_alpha=settings.alpha if settings.alpha is not None else 2 * settings.rank,
        lora_dropout=settings.dropout,
        target_modules=targets,
        # GPT-2 keeps its weights transposed
        fan_in_fan_out=bool(targeted) and not any(isinstance(module, torch.nn.Linear) for module in targeted),
        modules_to_save=sorted({last_part(name) for name in heads}) if head.is_new else None,
    )
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings")  # `merge` parts them
        return get_peft_model(model, adapters)


def target_names(model: Any, settings: Lora, heads: Mapping[str, Any]) -> list[str]:
    """The last parts of the linear layers' names, heads left out.

    Raises JobError when targetModules match no linear layer.
    """
    in_heads = {id(module) for head in heads.values() for module in head.modules()}
    layers = linear_layers(model)
    usual = sorted({last_part(name) for name, module in layers.items() if id(module) not in in_heads})
    if settings.target_modules is None:
        if not usual:
            raise JobError(
                Reason.UNSUPPORTED_MODEL, f"{type(model).__name__} has no linear layers outside its head", field=FIELD
            )
        return usual
    possible = {*layers, *_embeddings(model)}
    for target in settings.target_modules:
        if not any(name == target or name.endswith(f".{target}") for name in possible):
            message = f"no linear layer is named {target!r}; the model has {', '.join(usual[:12])}"
            raise JobError(Reason.INVALID_CONFIG, message, field=FIELD, hint="Name linear layers of the model.")
    return list(settings.target_modules)


def last_part(name: str) -> str:
    """Of a module's dotted name."""
    return name.rsplit(".", 1)[-1]


def _embeddings(model: Any) -> set[str]:
    """Names of the embeddings, which peft adapts too."""
    from torch.nn import Embedding

    return {name for name, module in model.named_modules() if isinstance(module, Embedding)}


def check(model: Any, settings: Lora, head: HeadPolicy) -> list[Finding]:
    """Raises JobError as `apply` does; finds a mixture's experts, which are no linear layers and so stay untrained."""
    target_names(model, settings, head_modules(model, head))
    left = {name: p.numel() for name, p in model.named_parameters() if p.dim() > 2 and ".experts." in f".{name}."}
    if not left:
        return []
    share = sum(left.values()) / sum(p.numel() for p in model.parameters())
    kinds = ", ".join(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in left))
    message = (
        f"Adapters leave the mixture's experts as they are: {kinds}, {share:.0%} of the weights. Use method full or"
        " freeze to train them."
    )
    return [Finding(kind="UntrainedExperts", count=len(left), message=message[:384])]


def save(model: Any, folder: Path, base: str, revision: str | None) -> None:
    """The adapter in peft's format, to be loaded onto `base`."""
    # "auto" would ask the hub for the base model's vocabulary; embeddings that are trained are saved anyway.
    model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": base, "revision": revision}
    path.write_text(json.dumps(config, indent=2) + "\n")
    (folder / "README.md").unlink(missing_ok=True)  # peft's own; ours takes its place


def merge(model: Any) -> Any:
    """The base model with the adapters added to its weights."""
    untie(model)
    return model.merge_and_unload()


def untie(model: Any) -> None:
    """Give the output layer weights of its own where it shares them with the embeddings and an adapter lies on one of
    the two: merged, they differ.
    """
    from torch.nn import Parameter

    base = model.get_base_model()
    embeddings, output = base.get_input_embeddings(), base.get_output_embeddings()
    plain_embeddings, plain_output = _without_adapter(embeddings), _without_adapter(output)
    if plain_embeddings is None or plain_output is None:
        return
    adapted = plain_embeddings is not embeddings or plain_output is not output
    if adapted and plain_embeddings.weight is plain_output.weight:
        plain_output.weight = Parameter(plain_output.weight.detach().clone(), requires_grad=False)
        base.config.tie_word_embeddings = False


def _without_adapter(module: Any) -> Any:
    """The layer itself under an adapter's."""
    return module.get_base_layer() if hasattr(module, "get_base_layer") else module


ADAPTER = AdapterFormat(
    library="peft",
    weights="adapter_model.safetensors",
    save=save,
    merge=merge,
    usage_import="from peft import PeftModel",
    usage_load="PeftModel.from_pretrained({base}, folder)",
)

METHOD = TuningMethod(
    METHODS["lora"],
    apply,
    check,
    phrase="a LoRA adapter",
    title="LoRA adapter",
    defaults=Lora(),
    identity={
        "loraRank": Identity("spec.method.lora.rank", lambda settings: settings.rank),
        "loraAlpha": Identity("spec.method.lora.alpha", lambda settings: settings.alpha),
        "loraTargets": Identity(FIELD, lambda settings: list(settings.target_modules or ())),
    },
    packages=("peft",),
    adapter=ADAPTER,
)
