"""What the methods of the library peft share: which modules are trained whole, and how adapters are written and merged.

peft takes a module that is to be trained whole by the end of its name, dots or not: names are checked here first.
"""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.status import Finding
from finetune_trainer.methods.base import AdapterFormat
from finetune_trainer.methods.modules import named, near
from finetune_trainer.model.head import HeadPolicy, learned_anew


def whole_modules(
    model: Any, head: HeadPolicy, heads: Mapping[str, Any], wanted: Sequence[str] = (), field: str = ""
) -> list[str] | None:
    """For peft's `modules_to_save`: a new head or the new parts of one, and the modules that the user names in `field`.

    Raises JobError for a name that fits no module with weights, or that peft would take for others too.
    """
    names = [last_part(name) for name in heads] if head.is_new else _new_parts(model)
    for name in wanted:
        found = [place for place in named(model, name) if any(True for _ in model.get_submodule(place).parameters())]
        if not found:
            message = f"no module with weights is named {name!r}"
            raise JobError(Reason.INVALID_CONFIG, message, field=field, hint=near(name, _places(model)))
        if others := [place for place in _places(model) if place.endswith(name) and place not in found]:
            message = f"{name!r} would be taken for {others[0]} too"
            hint = f"Write more of its name, as in {found[0]}."
            raise JobError(Reason.INVALID_CONFIG, message, field=field, hint=hint)
    return sorted({*names, *wanted}) or None


def _new_parts(model: Any) -> list[str]:
    """The modules of a head that the base came without, but for its output layer, which is the embeddings' own."""
    output = model.get_output_embeddings() if learned_anew(model) else None
    parts = dict.fromkeys(name.rpartition(".")[0] for name in learned_anew(model))
    return [part for part in parts if all(module is not output for module in model.get_submodule(part).modules())]


def _places(model: Any) -> list[str]:
    return [name for name, _ in model.named_modules() if name]


def last_part(name: str) -> str:
    """Of a module's dotted name."""
    return name.rsplit(".", 1)[-1]


def fits(name: str, targets: Iterable[str]) -> bool:
    """Whether a module is one of these by its name, or the last parts of it: as peft tells."""
    return any(name == target or name.endswith(f".{target}") for target in targets)


def transposed(modules: Iterable[Any]) -> bool:
    """Whether these layers keep their weights as GPT-2 does; they are all of one kind."""
    from torch.nn import Linear

    kinds = [isinstance(module, Linear) for module in modules]
    return bool(kinds) and not any(kinds)


def untrained_experts(model: Any) -> list[Finding]:
    """A mixture's experts, which are no linear layers and so get no adapters."""
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


@contextlib.contextmanager
def ties_allowed() -> Iterator[None]:
    """peft warns of adapters on layers that share their weights; `merge` parts them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings")
        yield


def merge(model: Any) -> Any:
    """The base model with the adapters added to its weights."""
    from peft.utils import ModulesToSaveWrapper

    untie(model)
    base = model.get_base_model()
    for name, module in list(base.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):  # peft's own way is wrong for some methods
            base.set_submodule(name, module.modules_to_save[module.active_adapters[0]])
    return model.merge_and_unload()


def untie(model: Any) -> None:
    """Give the output layer weights of its own where it shares them with the embeddings and one of the two is trained:
    merged, they differ.
    """
    from torch.nn import Parameter

    base = model.get_base_model()
    try:
        embeddings, output = base.get_input_embeddings(), base.get_output_embeddings()
    except NotImplementedError:  # transformers' word for a model that reads no tokens
        return
    plain_embeddings, plain_output = _as_it_was(embeddings), _as_it_was(output)
    if plain_embeddings is None or plain_output is None:
        return
    trained = plain_embeddings is not embeddings or plain_output is not output
    if trained and plain_embeddings.weight is plain_output.weight:
        plain_output.weight = Parameter(plain_output.weight.detach().clone(), requires_grad=False)
        base.config.tie_word_embeddings = False


def _as_it_was(module: Any) -> Any:
    """The layer itself under an adapter's, or the one whose copy is trained whole."""
    if hasattr(module, "get_base_layer"):
        return module.get_base_layer()
    return getattr(module, "original_module", module)


MERGING = AdapterFormat(
    library="peft",
    weights="adapter_model.safetensors",
    save=save,
    merge=merge,
    usage_import="from peft import PeftModel",
    usage_load="PeftModel.from_pretrained({base}, folder)",
)
