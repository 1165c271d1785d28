"""Token lengths from the sample: what maxLength should be, how much it cuts, and whether anything is left to learn.

Lengths are estimated (tokenising everything takes minutes for a million rows); a job that would learn nothing is
refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from finetune_api.exits import JobError, Reason
from finetune_api.status import Finding, Lengths
from finetune_api.text import clip
from finetune_trainer.batches.example import Example
from finetune_trainer.model.template import RefusedChat
from finetune_trainer.model.tokenizer import Tokenizer
from finetune_trainer.prepare.rows.survey import Sampled
from finetune_trainer.tasks.base import NothingToLearn, Task
from finetune_trainer.tasks.chats.messages import Chat, chat_of
from finetune_trainer.tasks.ends import learned_ends

UNCUT = 1 << 30


@dataclass(frozen=True, slots=True)
class Measured:
    """Lengths in tokens of the sampled rows before any cut, 0 where even the whole row has nothing to learn."""

    rows: Sequence[Sampled]
    lengths: np.ndarray
    troubles: Mapping[int, str]
    hidden: Mapping[int, int]
    """row -> turns of the assistant that its template does not show whole."""
    ends: tuple[int, ...]
    """Tokens that are learned as the end of a turn or a text, the most frequent first."""

    @property
    def longest(self) -> int:
        return int(self.lengths.max(initial=0))

    def quantile(self, share: float) -> int:
        """The smallest length that so many rows do not exceed."""
        return int(np.quantile(self.lengths, share, method="inverted_cdf")) if len(self.lengths) else 0


def measure(
    rows: Sequence[Sampled], task: Task, columns: Mapping[str, str], labels: Sequence[str] | None, tokenizer: Tokenizer
) -> Measured:
    """Encode the sample without cutting."""
    lengths = np.zeros(len(rows), dtype=np.int64)
    troubles: dict[int, str] = {}
    hidden: dict[int, int] = {}

    def examples() -> Iterator[Example]:
        for n, row in enumerate(rows):
            try:
                encoded = task.encode(row.values, columns, labels, tokenizer, UNCUT)
            except NothingToLearn as error:
                troubles[n] = str(error)
                continue
            lengths[n] = max(example.full_length for example in encoded)
            if turns := sum(example.hidden for example in encoded):
                hidden[n] = turns
            yield from encoded

    ends = learned_ends(examples(), tokenizer.special_ids)
    return Measured(rows, lengths, troubles, hidden, ends)


def chat_findings(
    measured: Measured, split: str, total: int, columns: Mapping[str, str], tokenizer: Tokenizer
) -> list[Finding]:
    """What the model's chat template leaves out of these rows."""
    rows, hidden, found = measured.rows, measured.hidden, []
    if hidden:
        n, share = min(hidden), len(hidden) / len(rows)
        message = (
            f"In {share:.1%} of the {split} rows looked at the chat template does not show all that the assistant wrote"
            f" (reasoning of earlier turns, say): {sum(hidden.values())} turns are not learned, the others are."
        )
        found.append(_finding("HiddenTurns", rows[n], share * total, message))
    if "tools" in columns:
        unseen = [
            n for n, row in enumerate(rows) if n not in measured.troubles and _tools_hidden(row, columns, tokenizer)
        ]
        if unseen:
            message = (
                f"The model's chat template shows nothing of the tools in column {columns['tools']!r}: calls are"
                " learned without it."
            )
            found.append(_finding("HiddenTools", rows[unseen[0]], len(unseen) / len(rows) * total, message))
    return found


def _tools_hidden(row: Sampled, columns: Mapping[str, str], tokenizer: Tokenizer) -> bool:
    chat = chat_of(row.values[columns["messages"]], row.values.get(columns["tools"]), tokenizer)
    try:
        return bool(chat.tools) and chat.render(tokenizer) == Chat(chat.messages).render(tokenizer)
    except RefusedChat:
        return False


def _finding(kind: str, row: Sampled, count: float, message: str) -> Finding:
    return Finding(
        kind=kind, count=max(1, round(count)), file=row.file[-256:], line=row.line, message=clip(message, 384)
    )


def judge(
    measured: Measured,
    task: Task,
    columns: Mapping[str, str],
    labels: Sequence[str] | None,
    tokenizer: Tokenizer,
    max_length: int,
    train_rows: int,
) -> tuple[Lengths, int, list[Finding]]:
    """Quantiles, estimated tokens of an epoch and findings at this maxLength.

    Raises JobError when no sampled row teaches anything.
    """
    rows, lengths = measured.rows, measured.lengths
    troubles = dict(measured.troubles)
    for n in np.flatnonzero(lengths > max_length).tolist() if labels is None else ():  # a class is never cut off
        try:
            task.encode(rows[n].values, columns, labels, tokenizer, max_length)
        except NothingToLearn as error:
            troubles[n] = str(error)
    if rows and len(troubles) == len(rows):
        first = rows[min(troubles)]
        raise JobError(
            Reason.NOTHING_TO_LEARN,
            f"{first.file}:{first.line}: {troubles[min(troubles)]}. So it is with all {len(rows)} rows looked at",
            field="spec.training.maxLength" if not measured.troubles else "spec.data.columns",
        )
    cut = float((lengths > max_length).mean()) if len(lengths) else 0.0
    tokens = int(np.minimum(lengths, max_length).mean() * train_rows) if len(lengths) else 0
    findings = []
    if troubles:
        n = min(troubles)
        share = len(troubles) / len(rows)
        message = f"In {share:.1%} of the rows looked at nothing is left to learn: {troubles[n]}"
        findings.append(_finding("NothingToLearn", rows[n], share * train_rows, message))
    if cut > 0:
        n = int(np.flatnonzero(lengths > max_length)[0])
        message = (
            f"About {cut:.1%} of the rows are longer than maxLength {max_length} and are cut; the longest seen has "
            f"{measured.longest} tokens. Raise spec.training.maxLength if what is cut matters."
        )
        findings.append(_finding("Truncated", rows[n], cut * train_rows, message))
    quantiles = Lengths(
        p50=measured.quantile(0.5), p95=measured.quantile(0.95), max=measured.longest, truncated_fraction=round(cut, 6)
    )
    return quantiles, tokens, findings
