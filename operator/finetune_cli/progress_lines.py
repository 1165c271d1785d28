"""What is new when one report follows another: lines for people, a pure function of the two snapshots.

The terminal's bar and the plain lines of a log file both show these, so that nothing is seen in one and not in the
other.
"""

from __future__ import annotations

from collections.abc import Iterator

from finetune_api.report import Report, Stage
from finetune_api.status import DataProfile, FoldScores, Progress, Resolved, SetScore, Verdict
from finetune_cli.terminal import plural, size
from finetune_operator.job.status.display import duration

STAGES = {
    Stage.PREPARING: "Checking data and model",
    Stage.LOADING: "Loading the model",
    Stage.TRAINING: "Training",
    Stage.EVALUATING: "Evaluating",
    Stage.SAVING: "Writing a checkpoint",
    Stage.TESTING: "Testing on the held-out rows",
    Stage.EXPORTING: "Writing model and report",
    Stage.FINISHED: "Finished",
}
_SHOWN_STAGES = (Stage.LOADING, Stage.TESTING, Stage.EXPORTING)


def lines(before: Report | None, now: Report) -> Iterator[str]:
    """What is new in a report, one line each."""
    if now.data is not None and (before is None or before.data != now.data):
        yield from data_lines(now.data)
    if now.resolved is not None and (before is None or before.resolved != now.resolved):
        yield from resolved_lines(before.resolved if before else None, now.resolved)
    stage = before.stage if before else None
    if now.stage in _SHOWN_STAGES and now.stage is not stage:
        yield STAGES[now.stage]
    if now.resumed_from_step is not None and (before is None or before.resumed_from_step is None):
        yield f"Going on from the checkpoint of step {now.resumed_from_step}"
    step = now.progress.step if now.progress else 0
    if now.evaluation and (before is None or before.evaluation != now.evaluation):
        better = now.best is not None and (before is None or before.best != now.best)
        yield f"step {step}: {metrics(now.evaluation)}{'  (best so far)' if better else ''}"
    if now.folds and now.folds.done and (before is None or before.folds != now.folds):
        done, count = now.folds.done, now.folds.count
        yield f"fold {done} of {count}: {_both(now.folds, now.folds.last, now.folds.last_loss)}"
        if done == count:
            yield f"{folds(now.folds)}; now all training rows"
    known = {c.digest for c in before.checkpoints} if before else set()
    for checkpoint in reversed(now.checkpoints if before else ()):
        if checkpoint.digest not in known:
            yield f"checkpoint of step {checkpoint.step} ({size(checkpoint.bytes)})"
    if now.test and (before is None or before.test != now.test):
        yield f"test: {metrics(now.test)}"
    told = {score.name for score in (before.sets if before else None) or ()}
    yield from (f"set {score_line(score)}" for score in now.sets or () if score.name not in told)
    if now.verdicts and (before is None or before.verdicts != now.verdicts):
        yield from map(verdict_line, now.verdicts)


def score_line(score: SetScore) -> str:
    """german (300 rows): macro-f1 0.91 [0.88, 0.93], loss 0.2."""
    return f"{score.name} ({plural(score.rows, 'row')}): {metrics(score.metrics)}"


def verdict_line(verdict: Verdict) -> str:
    """Its sentence, one that warns marked as such."""
    return f"WARNING: {verdict.message}" if verdict.warning else verdict.message


def data_lines(data: DataProfile) -> Iterator[str]:
    """What the prepare step found out."""
    rows = f"{data.train_rows:,} rows to learn from, {data.validation_rows:,} to validate, {data.test_rows:,} to test"
    yield f"data: {rows} in {plural(data.objects, 'object')} ({size(data.bytes)})"
    if data.labels:
        more = f", … ({data.label_count} in all)" if data.label_count and data.label_count > len(data.labels) else ""
        yield f"labels: {', '.join(data.labels)}{more}"
    if data.lengths:
        cut = f", {data.lengths.truncated_fraction:.1%} cut" if data.lengths.truncated_fraction else ""
        yield (
            f"tokens a row: median {data.lengths.p50}, 95th percentile {data.lengths.p95}, longest"
            f" {data.lengths.max}{cut}"
        )
    for finding in data.findings:
        place = (
            f"{finding.file}:{finding.line}: "
            if finding.file and finding.line
            else f"{finding.file}: "
            if finding.file
            else ""
        )
        yield f"{finding.kind} ({plural(finding.count, 'row')}): {place}{finding.message}"


def resolved_lines(before: Resolved | None, now: Resolved) -> Iterator[str]:
    """The values in force, those that are new."""
    words = {
        "total_steps": "steps",
        "epochs": "epochs",
        "global_batch_size": "rows a step",
        "micro_batch_size": "rows at once",
        "learning_rate": "learning rate",
        "max_length": "tokens at most",
        "architecture": "model",
        "device": "device",
        "precision": "precision",
    }
    parts = []
    for name, word in words.items():
        value = getattr(now, name)
        if value is not None and (before is None or getattr(before, name) != value):
            parts.append(f"{word} {value:g}" if isinstance(value, float) else f"{word} {value}")
    if now.parameters and (before is None or before.trainable_parameters != now.trainable_parameters):
        share = f" ({now.trainable_parameters / now.parameters:.2%} trained)" if now.trainable_parameters else ""
        parts.append(f"{now.parameters / 1e6:.1f} M weights{share}")
    if parts:
        yield ", ".join(parts)
    if now.columns and (before is None or before.columns != now.columns):
        yield f"columns: {columns(now.columns)}"


def columns(roles: dict[str, str]) -> str:
    """text = body, label = class."""
    return ", ".join(f"{role} = {column}" for role, column in roles.items())


def metrics(values: dict[str, float]) -> str:
    """macro-f1 0.961 [0.948, 0.973], accuracy 0.980: bounds stand behind the metric they belong to."""
    parts = []
    for name, value in values.items():
        low, high = values.get(f"{name}-low"), values.get(f"{name}-high")
        bounds = f" [{low:.4g}, {high:.4g}]" if low is not None and high is not None else ""
        if not name.endswith(("-low", "-high")):
            parts.append(f"{name} {value:.4g}{bounds}")
    return ", ".join(parts)


def folds(value: FoldScores) -> str:
    """mean of 5 folds: macro-f1 0.931 ± 0.021, loss 0.214 ± 0.03; the spread is the standard deviation."""
    which = plural(value.count, "fold") if value.done == value.count else f"{value.done} of {value.count} folds"
    spread = value.deviation, value.loss_deviation
    return f"mean of {which}: {_both(value, value.mean, value.mean_loss, *spread)}"


def _both(
    of: FoldScores,
    value: float | None,
    loss: float | None,
    deviation: float | None = None,
    loss_deviation: float | None = None,
) -> str:
    """The metric and the loss, each with its spread."""
    parts = ((of.metric, value, deviation), ("loss", loss, loss_deviation))
    return ", ".join(
        f"{name} {number:.4g}" + ("" if spread is None else f" ± {spread:.2g}")
        for name, number, spread in parts
        if number is not None
    )


def progress(value: Progress) -> str:
    """fold 2 of 5, step 61/144 (42%), loss 0.113, 10.9 rows/s, ETA 3m10s."""
    parts = [value.part] if value.part else []
    parts += [f"step {value.step}/{value.total_steps} ({value.percent:.0f}%)"]
    parts += [f"loss {value.loss:.4g}"] if value.loss is not None else []
    parts += [f"{value.rows_per_second:.3g} rows/s"] if value.rows_per_second else []
    parts += [f"ETA {duration(value.eta_seconds)}"] if value.eta_seconds is not None else []
    return ", ".join(parts)
