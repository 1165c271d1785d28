"""The metrics: one row each. A task's row (tasks.py) says which of them it has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """What all parts agree on about a metric."""

    name: str
    higher_is_better: bool
    direction: str = ""  # said beside its curve, where its name alone does not tell which way is better


LOSS = "loss"
"""Every task has it."""

AUTO = "auto"
"""No metric: spec.evaluation.metric leaves the choice to the task's row."""

METRICS = {
    metric.name: metric
    for metric in (
        MetricInfo(LOSS, higher_is_better=False),
        MetricInfo("accuracy", higher_is_better=True, direction="higher is better"),
        MetricInfo("top-5-accuracy", higher_is_better=True, direction="higher is better"),
        MetricInfo("f1", higher_is_better=True, direction="higher is better"),
        MetricInfo("precision", higher_is_better=True, direction="higher is better"),
        MetricInfo("recall", higher_is_better=True, direction="higher is better"),
        MetricInfo("macro-f1", higher_is_better=True, direction="higher is better"),
        MetricInfo("answer-f1", higher_is_better=True, direction="higher is better"),
        MetricInfo("exact-match", higher_is_better=True, direction="higher is better"),
        MetricInfo("micro-f1", higher_is_better=True, direction="higher is better"),
        MetricInfo("weighted-f1", higher_is_better=True, direction="higher is better"),
        MetricInfo("sample-f1", higher_is_better=True, direction="higher is better"),
        MetricInfo("subset-accuracy", higher_is_better=True, direction="higher is better"),
        MetricInfo("mcc", higher_is_better=True, direction="higher is better"),
        MetricInfo("auroc", higher_is_better=True, direction="higher is better"),
        MetricInfo("average-precision", higher_is_better=True, direction="higher is better"),
        MetricInfo("rmse", higher_is_better=False, direction="lower is better"),
        MetricInfo("mae", higher_is_better=False, direction="lower is better"),
        MetricInfo("pearson", higher_is_better=True, direction="higher is better"),
        MetricInfo("spearman", higher_is_better=True, direction="higher is better"),
        MetricInfo("perplexity", higher_is_better=False, direction="lower is better"),
    )
}


def higher_is_better(name: str) -> bool:
    """Whether more of the metric is better; no for a name that is none of ours."""
    return name in METRICS and METRICS[name].higher_is_better


def direction(name: str) -> str:
    """Which way is better, for people; empty for a name that is none of ours."""
    return METRICS[name].direction if name in METRICS else ""
