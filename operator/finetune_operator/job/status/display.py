"""Ready strings for kubectl's columns and the command line's progress line."""

from __future__ import annotations

from finetune_api.status import Best, Display, Phase, Status
from finetune_api.text import clip


def display(status: Status, model_uri: str) -> Display:
    """The columns of a status."""
    progress = status.progress
    done = status.phase is Phase.SUCCEEDED
    moving = status.phase in (Phase.RUNNING, Phase.EVALUATING)
    return Display(
        model=model_name(model_uri),
        progress="100%" if done else f"{int(progress.percent)}%" if progress else None,
        loss=number(progress.loss) if progress and progress.loss is not None else None,
        best=best(status.best) if status.best else None,
        eta=duration(progress.eta_seconds) if moving and progress and progress.eta_seconds is not None else None,
    )


def model_name(uri: str) -> str:
    """The last part of the URI: minilm for s3://models/minilm/."""
    return clip(uri.rstrip("/").rpartition("/")[2] or uri, 63)


def best(value: Best) -> str:
    """macro-f1=0.981"""
    return clip(f"{value.metric}={number(value.value)}", 128)


def number(value: float) -> str:
    """Three decimals where they say something: 0.113, 1.204, 37.1, 1.2e-05, 5.31e+04."""
    size = abs(value)
    if size == 0 or 0.001 <= size < 10:
        return f"{value:.3f}"
    if 10 <= size < 1000:
        return f"{value:.1f}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """45s, 3m10s, 2h05m, 3d04h."""
    total = max(0, round(seconds))
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if not minutes:
        return f"{total}s"
    if not hours:
        return f"{minutes}m{total % 60:02d}s"
    if not days:
        return f"{hours}h{minutes % 60:02d}m"
    return f"{days}d{hours % 24:02d}h" if days < 10_000 else ">9999d"
