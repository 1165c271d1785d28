"""README.md: a model card with the hub's header, and a body that says how the model was made and how good it is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from finetune_trainer.output.judged import score_table
from finetune_trainer.output.page.folds import sentences
from finetune_trainer.output.result import Result, bounds, class_table, fold_table, headline, loadable, name_of
from finetune_trainer.tasks.base import Task
from finetune_trainer.tasks.registry import task_for

MOST_CLASSES = 100
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def model_card(result: Result) -> str:
    """The card's text."""
    body = [
        f"# {result.title}",
        _summary(result),
        _metrics(result),
        _compared(result),
        _sets(result),
        _folds(result),
        _usage(result),
        _data(result),
        _training(result),
        _checkpoints(result),
    ]
    return _header(result) + "\n" + "\n\n".join(part for part in body if part) + "\n"


def _header(result: Result) -> str:
    """The YAML header; JSON values are YAML values.

    The hub refuses a base model or data set that is none of its own names.
    """
    sources = [name_of(s.uri) for s in (result.config.data.train,) if s.uri]
    names = headline(result.metrics)
    tag = task_for(result.config.task).info.pipeline_tag
    fields: dict[str, Any] = {
        "license": result.license or "unknown",
        "library_name": adapter.library if (adapter := result.method.adapter) else "transformers",
        "pipeline_tag": "feature-extraction" if result.head else tag,
        "metrics": names,
        "tags": ["finetune-operator", result.method.name],
    }
    if _HUB_NAME.fullmatch(result.base):
        fields["base_model"] = result.base
    if on_hub := [source for source in sources if _HUB_NAME.fullmatch(source)]:
        fields["datasets"] = on_hub
    if names:
        measured = [{"type": n, "name": n, "value": result.metrics[n]} for n in names]
        dataset = {
            "name": sources[0] if sources else "custom",
            "type": sources[0] if sources else "custom",
            "split": result.judged_on,
        }
        fields["model-index"] = [
            {"name": result.title, "results": [{"task": {"type": tag}, "dataset": dataset, "metrics": measured}]}
        ]
    return (
        "---\n"
        + "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in fields.items())
        + "---\n"
    )


def _summary(result: Result) -> str:
    best = result.report.best
    chosen = (
        f" The weights are those of step {best.step}, the best by {best.metric} ({best.value:.4g}) on the validation"
        " rows."
        if best
        else ""
    )
    if result.averaged:
        chosen = f" {result.averaged}"
    return (
        f"`{result.base}`, fine-tuned for {result.config.task} ({result.method.phrase}) by the job"
        f" `{result.config.job.name}`.{chosen}"
        " See report.html for curves."
    )


def _metrics(result: Result) -> str:
    metrics = result.metrics
    if not metrics and result.folds is not None:
        return ""
    if not metrics:
        return (
            "## Evaluation\n\nNo rows were held out, so the model was not evaluated. Set `data.validation` or"
            " `data.test`."
        )
    rows = []
    for name in headline(metrics):
        interval = bounds(metrics, name)
        rows.append((name, f"{metrics[name]:.4f}", f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else ""))
    text = (
        f"## Evaluation\n\nOn the {result.judged_on} rows"
        + _row_count(result)
        + ".\n\n"
        + _table(("metric", "value", "95 % interval"), rows)
    )
    if result.classes:
        shown = result.classes[:MOST_CLASSES]
        title, one, counted = result.class_words
        head, scores = class_table(shown, one, counted)
        text += f"\n\n{title}:\n\n" + _table(head, scores)
        if len(result.classes) > len(shown):
            text += f"\n\n{len(result.classes) - len(shown):,} more {title.lower()} are in metrics.json."
    for table in result.tables:
        text += "\n\n" + _table(table.head, list(table.rows))
    if result.wrong_answers:  # but none of their texts: a card is published, rows may not be
        text += (
            "\n\nThe answers that are most wrong are in errors.jsonl and report.html, with texts of the rows: leave"
            " these files out where the rows must not be published."
        )
    return text


def _compared(result: Result) -> str:
    parts = [f"- {'**Warning:** ' if v.warning else ''}{_cell(v.message)}" for v in result.verdicts]
    parts = ["\n".join(parts)] if parts else []
    for lines in (result.compared, result.learned_and_held_out):
        if lines:
            parts.append(_table(*score_table(lines, result.metric)))
    return "\n\n".join(("## What it is worth", *parts)) if parts else ""


def _sets(result: Result) -> str:
    if not result.sets:
        return ""
    head, rows = score_table(result.with_sets, result.metric, result.judged_on)
    text = "## Further sets\n\n" + _table(head, rows)
    return f"{text}\n\n{result.words_of_sets}" if result.words_of_sets else text


def _folds(result: Result) -> str:
    found = result.folds
    if found is None:
        return ""
    head, rows = fold_table(found, lambda value: f"{value:.4f}")
    said = "\n\n".join(sentences(result, found))
    return f"## Cross-validation\n\n{_table(head, rows)}\n\n{said}"


def _row_count(result: Result) -> str:
    return f" ({result.judged_rows:,})" if result.judged_rows else ""


def _usage(result: Result) -> str:
    task = task_for(result.config.task)
    where, auto = result.config.output.uri, task.head.auto_class
    uri = result.config.model.uri
    base = "base" if uri.startswith("s3://") else loadable(uri)
    kind = task.processor
    imports = [f"from transformers import {kind.auto_class}, {auto}"]
    folder, model = f"# `folder`: a copy of {where}", f"{auto}.from_pretrained(folder)"
    adapter = result.method.adapter
    if result.head:
        return _pooled_usage(result.head, folder, task, task.usage(result.facts, result.decision))
    if adapter:
        imports.insert(0, adapter.usage_import)
        folder += f"; `{base}`: the base model, {result.base}"
        outputs = task.head.config(result.labels).get("num_labels")
        more = f", num_labels={outputs}" if outputs else ""
        model = adapter.usage_load.format(base=f'{auto}.from_pretrained("{base}"{more})')
    lines = [
        *imports,
        "",
        folder,
        'folder = "model"',
        f"{kind.variable} = {kind.auto_class}.from_pretrained(folder)",
        f"model = {model}",
        "",
        *task.usage(result.facts, result.decision),
    ]
    text = "## How to use it\n\n```python\n" + "\n".join(lines) + "\n```"
    if adapter and result.config.output.merge:
        text += f"\n\n`merged/` holds the whole model with the adapter merged in; it needs no {adapter.library}."
    return text


def _pooled_usage(head: Mapping[str, Any], folder: str, task: Task, tried: list[str]) -> str:
    """Plain torch and transformers: the trunk, the pooling and the head's few layers by hand."""
    kind, linear = task.processor, "functional.linear"
    vectors = {
        "mean": "(states * mask).sum(1) / mask.sum(1)" if kind.variable == "tokenizer" else "states.mean(1)",
        "cls": "states[:, 0]",
        "last": "states[range(len(states)), mask.sum(1).squeeze(-1) - 1]",
        "pooled": "output.pooler_output.flatten(1)",
    }[head["pooling"]]
    needs = {name for name in ("states", "mask") if name in vectors}
    lines = [
        "from types import SimpleNamespace",
        "",
        "import torch",
        "from safetensors.torch import load_file",
        "from torch.nn import functional",
        f"from transformers import AutoModel, {kind.auto_class}",
        "",
        folder,
        'folder = "model"',
        f"{kind.variable} = {kind.auto_class}.from_pretrained(folder)",
        "trunk = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()",
        f'head = load_file(f"{{folder}}/{head["file"]}")',
        "",
        "",
        "@torch.no_grad()",
        "def model(**inputs):",
        "    output = trunk(**inputs)",
        *(["    states = output.last_hidden_state"] if "states" in needs else []),
        *(['    mask = inputs["attention_mask"].unsqueeze(-1)'] if "mask" in needs else []),
        f"    vectors = {vectors}",
    ]
    if head["hidden"]:
        lines.append(
            f'    vectors = functional.{head["activation"]}({linear}(vectors, head["hidden.weight"],'
            ' head["hidden.bias"]))'
        )
    lines += [
        f'    return SimpleNamespace(logits={linear}(vectors, head["output.weight"], head["output.bias"]))',
        "",
        "",
        "model.config = trunk.config",
        *tried,
    ]
    return (
        "## How to use it\n\n```python\n"
        + "\n".join(lines)
        + "\n```\n\nThe folder holds the trunk by itself, as `AutoModel` loads it, and the head beside it in"
        f" `{head['file']}`: Auto classes with a head would put a random one on the trunk. As the `model.uri` of"
        " another job it is the trunk that is tuned on."
    )


def _data(result: Result) -> str:
    data, source = result.report.data, result.config.data.train
    rows = [("train", source.uri + (f" at {source.revision}" if source.revision else ""))]
    rows += [(f"set {each.name}", each.uri) for each in result.config.evaluation.sets or ()]
    if data is not None:
        counts = f"{data.train_rows:,} train, {data.validation_rows:,} validation, {data.test_rows:,} test"
        rows += [("rows", f"{counts}, {data.bad_rows:,} left out")]
        if data.lengths:
            cut = f", {data.lengths.truncated_fraction:.1%} cut" if data.lengths.truncated_fraction else ""
            rows += [("tokens a row", f"median {data.lengths.p50}, 95 % at most {data.lengths.p95}{cut}")]
        if data.label_count:
            rows += [("classes", f"{data.label_count}: {', '.join(data.labels or ())}")]
        if data.manifest_digest:
            rows += [("data manifest", f"`{data.manifest_digest}`")]
    text = "## Data\n\n" + _table(("", ""), rows)
    findings = [f"- {f.kind} ({f.count:,}): {_cell(f.message)}" for f in (data.findings if data else ())]
    return text + "\n\n" + "\n".join(findings) if findings else text


def _training(result: Result) -> str:
    chosen = result.report.resolved.to_json() if result.report.resolved else {}
    rows: list[tuple[str, Any]] = [
        *chosen.items(),
        ("method", result.method.name),
        *result.method_settings.items(),
        *((name, value) for name, value in result.training_settings.items() if name not in chosen),
        *result.versions.items(),
    ]
    return "## Training\n\n" + _table(("setting", "value"), [(name, _value(value)) for name, value in rows])


def _checkpoints(result: Result) -> str:
    if not result.report.checkpoints:
        return ""
    rows = [
        (str(c.step), c.uri + (" (best)" if c.best else ""), f"`{c.digest[:16]}…`") for c in result.report.checkpoints
    ]
    return "## Checkpoints\n\n" + _table(("step", "where", "SHA-256 of its manifest"), rows)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_value(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(head: tuple[str, ...], rows: list[Any]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
