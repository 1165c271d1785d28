"""Turn a GGUF model, as llama.cpp and Ollama have it, into a folder that jobs can start from: config, tokenizer,
safetensors.

    python -m examples.convert_gguf MODEL.gguf FOLDER        (needs: pip install gguf)

Quantised weights become plain float32: what quantisation lost stays lost, so prefer the original weights where there
are any. The chat template comes along; nothing of the file is run as code.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


class NotConverted(ValueError):
    """The file cannot be converted; the message says why and what to do."""


def convert(source: Path, folder: Path) -> Path:
    """Write config.json, the tokenizer's files and model.safetensors to `folder`, which must be new or empty.

    Raises NotConverted.
    """
    if not _is_gguf(source):
        raise NotConverted(f"{source} is not a GGUF file")
    if folder.exists() and any(folder.iterdir()):
        raise NotConverted(f"{folder} is not empty: choose another folder")
    try:
        import gguf
    except ImportError:
        raise NotConverted("the package gguf is missing: pip install gguf") from None
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where)
        dequantised = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # NotImplementedError is transformers' word for an architecture or a quantisation that it does not know.
    except (ValueError, KeyError, NotImplementedError, OSError) as error:
        raise NotConverted(f"{source} holds a model that transformers cannot read from GGUF: {error}") from error
    template = gguf.GGUFReader(source).get_field("tokenizer.chat_template")
    if template is not None:
        tokenizer.chat_template = template.contents()
    config = dequantised.config
    del config.quantization_config  # what is loaded is plain float32, and transformers would refuse to save it
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(dequantised.state_dict())
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def _is_gguf(source: Path) -> bool:
    if not source.is_file():
        return False
    with source.open("rb") as file:
        return file.read(4) == b"GGUF"


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, metavar="MODEL.gguf", help="the model to convert")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the converted model goes; made if absent")
    arguments = parser.parse_args()
    try:
        print(convert(arguments.source, arguments.folder))
    except NotConverted as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
