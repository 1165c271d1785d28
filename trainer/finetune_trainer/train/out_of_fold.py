"""Answers to all training rows, each by the round that did not learn from it.

Every rank answers its own rows of a fold when the fold is judged, and stores them at once: a line a row, in the order
of the rows. At the end of the run rank 0 merges all lines into one file by the rows' places in their source. No more
than a window of rows is in memory, and a killed run answers at most one fold again.
"""

from __future__ import annotations

import heapq
import itertools
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zstandard

from finetune_trainer.batches.example import Example
from finetune_trainer.evaluate.loop import ROUND_SECONDS, Stopped
from finetune_trainer.tasks.answers import logits, written
from finetune_trainer.tasks.base import Decision, Task
from finetune_trainer.train.rounds import Round
from finetune_trainer.train.scratch import scratch_folder
from finetune_trainer.train.session import Session

NAME = "folds/predictions.jsonl"
"""In the output."""
PARTS = "ckpt/folds/"
"""What is stored of it before: ckpt/folds/<generation>/<fold>-<rank>.jsonl.zst."""
WINDOW, OPENED = 64, 16
"""Rows that are answered together, for they are sorted by length; of rows whose files are held fewer."""


def answers_rows(task: Task) -> bool:
    """Whether answers to training rows say how good the model is: not where there is nothing to compare them with, nor
    where whole texts are written.
    """
    return bool(task.learned_roles) and not task.head.writes


def store_answers(s: Session, part: Round, decision: Decision) -> list[str]:
    """Answer the rows of the round's fold; the objects that hold the answers, one of each rank.

    Raises Stopped on all ranks together. Collective.
    """
    if not answers_rows(s.data.task):
        return []
    generation = s.ranks.from_first(lambda: s.checkpoints.generation)
    names = [f"{PARTS}{generation}/{part.fold}-{rank}.jsonl.zst" for rank in range(s.ranks.size)]
    was_training = s.model.training
    s.model.eval()
    try:
        with scratch_folder(s.config, "answers") as folder:
            path = folder / "answers.jsonl.zst"
            with zstandard.open(path, "wt", encoding="utf-8") as file:
                windows = _answered(s, part, decision)
                while not _round(s, windows, file):
                    pass
            s.out.put_file(names[s.ranks.rank], path)
    finally:
        s.model.train(was_training)
    s.ranks.sum([0.0])  # all have stored theirs
    return names


def _round(s: Session, windows: Iterator[list[str]], file: Any) -> bool:
    """Work for a few seconds; whether all ranks are done. Raises Stopped. Collective."""
    deadline, done = time.monotonic() + ROUND_SECONDS, True
    with torch.inference_mode(), s.ranks.autocast():
        for lines in windows:
            file.writelines(lines)
            if time.monotonic() > deadline or s.stop():
                done = False
                break
    stopping, unfinished = s.ranks.sum([float(s.stop()), float(not done)])
    if stopping:
        raise Stopped
    return not unfinished


def _answered(s: Session, part: Round, decision: Decision) -> Iterator[list[str]]:
    """Lines of this rank's rows, a window at a time: the row's place, a tab, and its object of JSON."""
    data, task = s.data, s.data.task
    assert part.judged is not None
    places, kept = Places(s), data.kept.get(part.judged) if task.answer is not None else None
    with data.stream(part.judged) as stream:
        rows = stream.numbered()
        while window := list(itertools.islice(rows, OPENED if task.file_roles else WINDOW)):
            named = [data.named(row) for _, row in window]
            if kept is None:
                given = [data.opened(row) for row in named]
                answers = task.predict(s.model, given, data.facts, decision, data.tokenizer, data.max_length)
            else:
                answers = _of_kept(s, [kept.examples(number) for number, _ in window], decision)
            at = stream.positions(np.array([number for number, _ in window]))
            yield [
                f"{place}\t{json.dumps(places.line(place, part.fold, row, answer), ensure_ascii=False)}\n"
                for place, row, answer in zip(at.tolist(), named, answers, strict=True)
            ]


def _of_kept(s: Session, rows: Sequence[Sequence[Example]], decision: Decision) -> list[dict[str, Any]]:
    """`Task.predict` of rows whose way through the frozen part is behind them; one example each."""
    data, answer = s.data, s.data.task.answer
    assert answer is not None
    found = logits(s.model, [example for (example,) in rows], data.tokenizer.pad_id, data.max_length)
    return [answer(scores, data.facts, decision) for scores in found]


class Places:
    """Lines of the file; rows are named by their object, and their number in it from 1."""

    def __init__(self, s: Session) -> None:
        objects = s.data.manifest.sources["train"].objects
        self._keys = [item.key for item in objects]
        self._ends = np.cumsum([item.rows for item in objects])
        self._learned = s.data.task.learned_columns(s.data.profile.columns)

    def line(self, place: int, fold: int | None, row: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
        """Of the row at this place of the source."""
        n = int(np.searchsorted(self._ends, place, side="right"))
        before = int(self._ends[n - 1]) if n else 0
        return {
            "object": self._keys[n],
            "row": place - before + 1,
            "fold": fold,
            "true": {column: written(row.get(column)) for column in self._learned},
            "answer": written(answer),
        }


def write_predictions(s: Session, folder: Path) -> None:
    """The file in the (new) output folder, where there are answers. Rank 0."""
    names = [name for fold in s.folds.done for name in fold.predictions]
    if not names:
        return
    target = folder / NAME
    target.parent.mkdir()
    with scratch_folder(s.config, "folds") as parts, open(target, "w", encoding="utf-8") as out:
        paths = [parts / str(n) for n in range(len(names))]
        for name, path in zip(names, paths, strict=True):
            with s.out.open(name) as source, open(path, "wb") as copy:
                shutil.copyfileobj(source, copy)
        for line in heapq.merge(*map(_lines, paths), key=_place):
            out.write(line.partition("\t")[2])


def sweep_answers(s: Session) -> None:
    """Delete what attempts stored that were killed before a checkpoint named it. Rank 0, after the commit."""
    kept = {name for fold in s.folds.done for name in fold.predictions}
    s.out.delete([info.key for info in s.out.list(PARTS) if info.key not in kept])


def _lines(path: Path) -> Iterator[str]:
    with zstandard.open(path, "rt", encoding="utf-8", newline="\n") as file:
        yield from file


def _place(line: str) -> int:
    return int(line.partition("\t")[0])
