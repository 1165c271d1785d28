"""errors.jsonl: the answers that are most wrong, one a line, with their rows' texts."""

from __future__ import annotations

import json
from collections.abc import Iterator

from finetune_trainer.output.result import Result

MOST_TEXT = 10_000
"""Characters of a text, at most."""


def error_lines(result: Result) -> Iterator[str]:
    """The lines, kind by kind, the worst first."""
    for each in result.wrong_answers:
        mistake = each.mistake
        line = {
            "kind": each.kind,
            "split": result.judged_on,
            "file": each.file,
            "row": each.row,
            "line": each.line,
            "text": mistake.text[:MOST_TEXT],
            "true": mistake.true[:MOST_TEXT],
            "predicted": mistake.said[:MOST_TEXT],
            **{name: round(value, 6) for name, value in mistake.figures.items()},
        }
        yield json.dumps(line, ensure_ascii=False) + "\n"
