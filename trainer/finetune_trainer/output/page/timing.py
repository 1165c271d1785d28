"""Where the time went: seconds by cause, attempt by attempt."""

from __future__ import annotations

from html import escape

from finetune_trainer.output.page.charts import TONES
from finetune_trainer.output.page.numbers import duration
from finetune_trainer.output.result import Result

MOST_ATTEMPTS = 20
_TONES = (*(f"var(--tone{n})" for n in range(1, TONES + 1)), "var(--soft)")


def timing(result: Result) -> str:
    attempts = list(result.attempts) or (
        [{"number": result.config.attempt, "seconds": dict(result.report.seconds)}] if result.report.seconds else []
    )
    if not attempts:
        return ""
    causes = list(dict.fromkeys(cause for a in attempts for cause in a.get("seconds") or {}))
    tone = {cause: _TONES[i % len(_TONES)] for i, cause in enumerate(causes)}
    longest = max(sum((a.get("seconds") or {}).values()) for a in attempts) or 1.0
    cards = []
    for attempt in attempts[-MOST_ATTEMPTS:]:
        seconds = {k: v for k, v in (attempt.get("seconds") or {}).items() if v > 0}
        steps = (
            f", steps {attempt.get('fromStep') or 0:,} to {attempt['lastStep']:,}"
            if attempt.get("lastStep") is not None
            else ""
        )
        bar = "".join(
            f'<i style="width: {100 * v / longest:.2f}%; background: {tone[k]}" title="{escape(k)}"></i>'
            for k, v in seconds.items()
        )
        keys = "".join(
            f'<span><b style="background: {tone[k]}"></b>{escape(k)} {duration(v)}</span>' for k, v in seconds.items()
        )
        title = escape(f"Attempt {attempt.get('number', '?')}{steps}: {duration(sum(seconds.values()))}")
        cards.append(f'<h3>{title}</h3><div class="bar">{bar}</div><p class="spent">{keys}</p>')
    return f'<h2>Where the time went</h2><div class="card">{"".join(cards)}</div>'
