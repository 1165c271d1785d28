"""What the model wrote, or marked, before and after tuning."""

from __future__ import annotations

from html import escape

from finetune_trainer.output.page.marked import marked
from finetune_trainer.output.page.tables import shorten
from finetune_trainer.output.result import Marks, Result

MOST_SAMPLES, MOST_TEXT = 20, 3000


def samples(result: Result) -> str:
    if not result.samples:
        return ""
    cards = []
    for sample in result.samples[:MOST_SAMPLES]:
        wanted = (
            f"<h3>Reference</h3><pre>{_written(sample.reference, sample.reference_marks)}</pre>"
            if sample.reference
            else ""
        )
        asked = (
            f"<h3>Prompt</h3><pre>{escape(shorten(sample.prompt, MOST_TEXT))}</pre>"
            if sample.prompt != sample.reference  # else it is shown there, marked
            else ""
        )
        before, after = _written(sample.before, sample.before_marks), _written(sample.after, sample.after_marks)
        cards.append(
            f'<div class="card sample">{asked}<div'
            f' class="pair"><div class="before"><h3>Before tuning</h3><pre>{before}</pre></div><div'
            f' class="after"><h3>After tuning</h3><pre>{after}</pre></div></div>{wanted}</div>'
        )
    more = (
        f'<p class="muted">{len(result.samples) - MOST_SAMPLES} more samples are left out here.</p>'
        if len(result.samples) > MOST_SAMPLES
        else ""
    )
    return f"<h2>Before and after</h2>{''.join(cards)}{more}"


def _written(text: str, marks: Marks = ()) -> str:
    """What a model wrote, which may be nothing to see, or what it marked."""
    if marks:
        return marked(text, marks, MOST_TEXT)
    return escape(shorten(text, MOST_TEXT)) if text.strip() else "(only white space)" if text else "(nothing)"
