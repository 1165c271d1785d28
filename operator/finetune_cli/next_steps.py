"""The commands to try next: open the report, use the model. They work as printed, on the machine they are printed on."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from finetune_api.job import Manifest


def after_success(manifest: Manifest) -> list[tuple[str, str]]:
    """What to do with a committed output."""
    spec, uri = manifest.spec, manifest.spec.output.uri.rstrip("/")
    steps = []
    if uri.startswith("file://"):
        folder = str(local_path(uri))
        steps.append(("read the report", f"xdg-open {folder}/report.html"))
    else:
        folder = manifest.metadata.name
        endpoint = f" --endpoint-url {spec.storage.endpoint}" if spec.storage.endpoint else ""
        steps.append(
            ("fetch the model and its report", f"aws s3 cp{endpoint} --recursive --exclude 'ckpt/*' {uri} {folder}")
        )
        steps.append(("read the report", f"xdg-open {folder}/report.html"))
    steps.append(("use the model", _snippet(manifest, folder)))
    return steps


def local_path(uri: str) -> Path:
    """The folder of a file:// URI."""
    return Path(unquote(uri.removeprefix("file://")))


def _snippet(manifest: Manifest, folder: str) -> str:
    spec = manifest.spec
    if spec.method.type == "lora" and not spec.output.merge:
        return f"less {folder}/README.md    # how to load the adapter over its base model; spec.output.merge: true makes one model"
    model = f"{folder}/merged" if spec.output.merge else folder
    if spec.task == "text-classification":
        use = f"pipeline('text-classification', '{model}')('You have won a prize')"
    else:
        use = (
            f"pipeline('text-generation', '{model}')([{{'role': 'user', 'content': 'Hello'}}])[0]['generated_text'][-1]"
        )
    return f'python -c "from transformers import pipeline; print({use})"'
