"""Cross-validation: how well the model does on rows that it did not learn from, and how far that varies."""

from __future__ import annotations

from html import escape
from typing import Any

from finetune_trainer.output.page.charts import TONES, Curve, chart, smooth
from finetune_trainer.output.page.numbers import figure
from finetune_trainer.output.page.tables import table
from finetune_trainer.output.result import Folds, Result, fold_table


def folds(result: Result, events: list[dict[str, Any]]) -> str:
    found = result.folds
    if found is None:
        return ""
    head, rows = fold_table(found, figure)
    cells = [(escape(name), *values) for name, *values in rows]
    said = "".join(f'<p class="muted">{escape(sentence)}</p>' for sentence in sentences(result, found))
    drawn = chart("Loss of each fold, smoothed", losses_of_folds(found, events))
    return (
        f'<h2>Cross-validation in {len(found.rows)} folds</h2><div class="card">'
        f"{table(tuple(map(escape, head)), cells)}{said}</div>"
        + (f'<section class="pair">{drawn}</section>' if drawn else "")
    )


def sentences(result: Result, found: Folds) -> list[str]:
    """What the figures are, for people."""
    by = result.config.evaluation.folds and result.config.evaluation.folds.group_by
    said = [
        "Each fold was judged once, by a model that was tuned from the same start on the rows of the other folds;"
        " nothing was chosen by its rows. The model of this output was then tuned on all training rows."
    ]
    if by:
        said.append(f"Rows with the same {by} are in one fold.")
    if found.decided:
        said.append(found.decided)
    if found.predictions:
        said.append(f"{found.predictions} has the answer to each training row by the model that did not learn from it.")
    return said


def losses_of_folds(found: Folds, events: list[dict[str, Any]]) -> list[Curve]:
    """Each fold's steps from its own first one."""
    curves = []
    for fold in range(1, len(found.rows) + 1):
        steps = [e for e in events if e["kind"] == "step" and e.get("fold") == fold and e.get("loss") is not None]
        first = steps[0]["step"] - 1 if steps else 0
        points = smooth([(e["step"] - first, e["loss"]) for e in steps])
        again, tone = divmod(fold - 1, TONES)
        curves.append(Curve(f"fold {fold}", points, tone=tone + 1, dashed=again % 2 == 1))
    return curves
