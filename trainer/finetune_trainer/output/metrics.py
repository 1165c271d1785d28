"""metrics.json: the final figures, with what is needed to judge them."""

from __future__ import annotations

import dataclasses

from finetune_trainer.output.result import Result


def metrics(result: Result) -> dict[str, object]:
    """The content of metrics.json."""
    report, judged = result.report, result.judged
    return {
        "job": result.config.job.name,
        "task": result.config.task,
        "method": result.method.name,
        "base": result.base,
        "test": report.test,
        "validation": dict(judged.validation.metrics) if judged.validation else report.evaluation,
        "sets": {name: scores.to_json() for name, scores in judged.sets.items()},
        "before": {split: scores.to_json() for split, scores in judged.base.items()},
        "constant": judged.constant and {"answer": judged.constant_words, **judged.constant.to_json()},
        "learned": judged.learned and judged.learned.to_json(),
        "verdicts": [verdict.to_json() for verdict in result.verdicts],
        "best": report.best and report.best.to_json(),
        **({} if result.folds is None else {"folds": dataclasses.asdict(result.folds)}),
        "classes": [dataclasses.asdict(c) for c in result.classes],
        "labels": list(result.labels),
        "pairs": result.pairs and dataclasses.asdict(result.pairs),
        "confusion": result.confusion and [list(row) for row in result.confusion],
        "tables": [dataclasses.asdict(t) for t in result.tables],
        "resolved": report.resolved and report.resolved.to_json(),
        "data": report.data and report.data.to_json(),
        "steps": report.progress.step if report.progress else None,
        "seed": result.config.training.seed,
        "attempts": list(result.attempts),
        "versions": result.versions,
    }
