"""The families of models that are known to fit: one row each. A task's row (tasks.py) says which kinds of them it has.

Others may fit, too: the prepare step asks transformers. These are trained, written, loaded again and resumed in tests,
so docs and refusals name them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

ENCODER, DECODER, VISION = "encoder", "decoder", "vision"


@dataclass(frozen=True, slots=True)
class Family:
    """What all parts agree on about a family of models."""

    name: str  # for people
    kind: str
    model_type: str  # as its config.json says
    example: str  # a model of the Hugging Face hub


FAMILIES = {
    family.model_type: family
    for family in (
        Family("BERT", ENCODER, "bert", "google-bert/bert-base-uncased"),
        Family("RoBERTa", ENCODER, "roberta", "FacebookAI/roberta-base"),
        Family("DistilBERT", ENCODER, "distilbert", "distilbert/distilbert-base-uncased"),
        Family("ALBERT", ENCODER, "albert", "albert/albert-base-v2"),
        Family("ELECTRA", ENCODER, "electra", "google/electra-small-discriminator"),
        Family("ModernBERT", ENCODER, "modernbert", "answerdotai/ModernBERT-base"),
        Family("DeBERTa-v3", ENCODER, "deberta-v2", "microsoft/deberta-v3-small"),
        Family("XLM-R", ENCODER, "xlm-roberta", "FacebookAI/xlm-roberta-base"),
        Family("MPNet", ENCODER, "mpnet", "microsoft/mpnet-base"),
        Family("Llama", DECODER, "llama", "HuggingFaceTB/SmolLM2-135M"),
        Family("Mistral", DECODER, "mistral", "mistralai/Mistral-7B-v0.3"),
        Family("Qwen2", DECODER, "qwen2", "Qwen/Qwen2.5-0.5B"),
        Family("Qwen3", DECODER, "qwen3", "Qwen/Qwen3-0.6B"),
        Family("Gemma 3", DECODER, "gemma3_text", "google/gemma-3-270m"),
        Family("GPT-2", DECODER, "gpt2", "openai-community/gpt2"),
        Family("ViT", VISION, "vit", "google/vit-base-patch16-224-in21k"),
        Family("DeiT", VISION, "deit", "facebook/deit-tiny-patch16-224"),
        Family("Swin", VISION, "swin", "microsoft/swin-tiny-patch4-window7-224"),
        Family("ConvNeXt", VISION, "convnext", "facebook/convnext-tiny-224"),
        Family("ResNet", VISION, "resnet", "microsoft/resnet-18"),
    )
}
"""By model type. MiniLM is a BERT, SmolLM2 a Llama."""


def of_kinds(kinds: Iterable[str], but: Iterable[str] = ()) -> tuple[Family, ...]:
    """The families of these kinds, in the table's order, without those of the model types `but`."""
    wanted, left_out = set(kinds), set(but)
    return tuple(f for f in FAMILIES.values() if f.kind in wanted and f.model_type not in left_out)
