"""How the model got there: loss, metrics, learning rate and gradient norm over the steps."""

from __future__ import annotations

from typing import Any

from finetune_api.metrics import direction
from finetune_trainer.output.page.charts import Curve, chart, smooth
from finetune_trainer.output.page.numbers import figure
from finetune_trainer.output.result import Result


def curves(result: Result, events: list[dict[str, Any]]) -> str:
    steps = [e for e in events if e["kind"] == "step" and "fold" not in e]
    evaluations = [{**e, **(e.get("metrics") or {})} for e in events if e["kind"] == "evaluation"]
    loss = _points(steps, "loss")
    held_out = _points(evaluations, "eval_loss") or _points(evaluations, "loss")
    raw = Curve("each step", loss, 1, faint=True)
    drawn = [Curve("training", loss, 1)] if len(loss) < 40 else [raw, Curve("training, smoothed", smooth(loss), 1)]
    figures = [chart("Loss", [*drawn, Curve("validation", held_out, 2, dots=True)])]
    best = result.report.best
    names = sorted(
        {k for e in evaluations for k, v in e.items() if isinstance(v, int | float)}
        - {"step", "time", "loss", "eval_loss", "seconds", "rows"}
    )
    names = [n for n in names if not n.endswith(("-low", "-high"))]
    for name in sorted(names, key=lambda n: not (best and n == best.metric))[:4]:
        mark = (
            (best.step, best.value, f"best {figure(best.value)}, step {best.step:,}")
            if best and best.metric == name
            else None
        )
        better = direction(name)
        title = f"{name} on the validation rows" + (f" ({better})" if better else "")
        figures.append(chart(title, [Curve(name, _points(evaluations, name), 3, dots=True)], mark=mark))
    rate = _points(steps, "learningRate") or _points(steps, "learning_rate")
    norm = _points(steps, "gradNorm") or _points(steps, "grad_norm")
    figures.append(chart("Learning rate", [Curve("learning rate", rate, 1)]))
    drawn = (
        [Curve("gradient norm", norm, 1)]
        if len(norm) < 40
        else [Curve("each step", norm, 1, faint=True), Curve("smoothed", smooth(norm), 1)]
    )
    figures.append(chart("Gradient norm before clipping", drawn))
    figures = [figure for figure in figures if figure]
    return f'<h2>Training</h2><section class="pair">{"".join(figures)}</section>' if figures else ""


def _points(events: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(e["step"], e[name]) for e in events if isinstance(e.get(name), int | float)]
