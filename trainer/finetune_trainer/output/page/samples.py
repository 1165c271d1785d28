"""What the model wrote before and after tuning."""

from __future__ import annotations

from html import escape

from finetune_trainer.output.page.tables import shorten
from finetune_trainer.output.result import Result

MOST_SAMPLES, MOST_TEXT = 20, 3000


def samples(result: Result) -> str:
    if not result.samples:
        return ""
    cards = []
    for sample in result.samples[:MOST_SAMPLES]:
        wanted = (
            f"<h3>Reference</h3><pre>{escape(shorten(sample.reference, MOST_TEXT))}</pre>" if sample.reference else ""
        )
        cards.append(
            f'<div class="card sample"><h3>Prompt</h3><pre>{escape(shorten(sample.prompt, MOST_TEXT))}</pre><div'
            f' class="pair"><div class="before"><h3>Before tuning</h3><pre>{_written(sample.before)}</pre></div><div'
            f' class="after"><h3>After tuning</h3><pre>{_written(sample.after)}</pre></div></div>{wanted}</div>'
        )
    more = (
        f'<p class="muted">{len(result.samples) - MOST_SAMPLES} more samples are left out here.</p>'
        if len(result.samples) > MOST_SAMPLES
        else ""
    )
    return f"<h2>Before and after</h2>{''.join(cards)}{more}"


def _written(text: str) -> str:
    """What a model wrote, which may be nothing to see."""
    return escape(shorten(text, MOST_TEXT)) if text.strip() else "(only white space)" if text else "(nothing)"
