"""The commands to try next: open the report, use the model.

They work as printed, on the machine they are printed on.
"""

from __future__ import annotations

from finetune_api.job import Manifest
from finetune_api.method import METHODS
from finetune_api.tasks import TASKS
from finetune_cli.file_uri import local_path
from finetune_cli.terminal import quoted


def after_success(manifest: Manifest) -> list[tuple[str, str]]:
    """What to do with a committed output."""
    spec, uri = manifest.spec, manifest.spec.output.uri.rstrip("/")
    steps = []
    if uri.startswith("file://"):
        folder = str(local_path(uri))
        steps.append(("read the report", f"xdg-open {quoted(folder)}/report.html"))
    else:
        folder = manifest.metadata.name
        endpoint = f" --endpoint-url {quoted(spec.storage.endpoint)}" if spec.storage.endpoint else ""
        steps.append(
            (
                "fetch the model and its report",
                f"aws s3 cp{endpoint} --recursive --exclude 'ckpt/*' {quoted(uri)} {folder}",
            )
        )
        steps.append(("read the report", f"xdg-open {folder}/report.html"))
    steps.append(("use the model", _snippet(manifest, folder)))
    steps.append(("let it answer the rows of a file, as those that it knows", _predict(manifest)))
    return steps


def _predict(manifest: Manifest) -> str:
    spec = manifest.spec
    held_out = (h for h in (spec.data.test, spec.data.validation) if h and h.uri and not h.uri.startswith("hf://"))
    rows = next((h.uri for h in held_out if h.uri), spec.data.train.uri)
    uri = spec.output.uri.rstrip("/")
    output = str(local_path(uri)) if uri.startswith("file://") else uri
    reaches = [uri for uri in (output, rows) if uri.startswith("s3://")]
    endpoint = f" --endpoint {quoted(spec.storage.endpoint)}" if reaches and spec.storage.endpoint else ""
    return f"finetune predict{endpoint} {quoted(output)} {quoted(rows)} -o answers.jsonl"


def _snippet(manifest: Manifest, folder: str) -> str:
    spec, task = manifest.spec, TASKS[manifest.spec.task]
    if METHODS[spec.method.type].merges and not spec.output.merge:
        return (
            f"less {quoted(folder)}/README.md    # how to load the adapter over its base model; spec.output.merge: true"
            " makes one model"
        )
    if not task.example_call or METHODS[spec.method.type].pools:
        return f"less {quoted(folder)}/README.md    # how to use it: code that runs as it stands"
    model = f"{folder}/merged" if spec.output.merge else folder
    use = f"p = pipeline({task.pipeline_tag!r}, {model!r}); print(p{task.example_call})"
    return f"python -c {_shell(f'from transformers import pipeline; {use}')}"


def _shell(code: str) -> str:
    """Code as one word, in double quotes, which read best around code that holds single ones."""
    return f'"{code}"' if not any(c in code for c in '"\\$`!') else quoted(code)
