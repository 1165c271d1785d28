"""What a run came to, as the output room takes it: the report's content and the model's files. Rank 0."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from finetune_trainer.batches.example import Example
from finetune_trainer.methods import method_for
from finetune_trainer.model.pooled import PooledModel
from finetune_trainer.model.units import fold_units
from finetune_trainer.output import ClassScore, Pairs, Result, Sample, Table, versions
from finetune_trainer.output.model import write_model
from finetune_trainer.output.provenance import license_of
from finetune_trainer.output.result import Marks, loadable
from finetune_trainer.output.verify import Probe
from finetune_trainer.tasks.base import Decision, Picture
from finetune_trainer.tasks.ends import learned_ends
from finetune_trainer.train.chosen_weights import Chosen
from finetune_trainer.train.data import TrainingData
from finetune_trainer.train.final import Final
from finetune_trainer.train.folds import folds_result
from finetune_trainer.train.samples import write_samples
from finetune_trainer.train.session import Session
from finetune_trainer.train.wrong_answers import shown

EXAMPLES = 32
"""Rows by which what is exported is judged."""
PICTURES = 96
"""Rows of which the report shows some."""


def result_of(s: Session, final: Final, chosen: Chosen) -> Result:
    """All that the report is made of; `final`: its final evaluations; `chosen`: the weights that are the result."""
    tally, mistakes = final.test or final.again, s.data.task.mistakes
    details = (tally.report() if tally is not None else None) or {}
    confusion = details.get("confusion")
    pairs = details.get("pairs")
    notes = [*s.checkpoints.notes, *s.skipped_rows.notes(), *details.get("notes", ())]
    if s.state.stopped_early:
        notes.append(f"Stopped early at step {s.state.step}: {s.resolved.metric} no longer improved.")
    if chosen.note:
        notes.append(chosen.note)
    before = s.state.samples
    after = write_samples(s.model, s.data, s.ranks, s.stop, chosen.decision) if before else []
    return Result(
        config=s.config,
        report=s.progress.last_report,
        facts=s.data.facts,
        decision=chosen.decision,
        head=s.model.description if isinstance(s.model, PooledModel) else None,
        averaged=chosen.note if chosen.averaged else None,
        classes=tuple(ClassScore(**c) for c in details.get("classes", ())),
        class_words=details.get("words", ("Classes", "class", "rows")),
        confusion=None if confusion is None else tuple(tuple(row) for row in confusion),
        tables=tuple(Table.of(table) for table in details.get("tables", ())),
        judged=final.judged,
        pairs=None if pairs is None else Pairs(tuple(pairs["bounds"]), tuple(map(tuple, pairs["counts"]))),
        folds=folds_result(s),
        samples=tuple(
            Sample(
                b["prompt"],
                b["text"],
                a["text"],
                b.get("reference"),
                *(_marks(marks) for marks in (b.get("marks"), a.get("marks"), b.get("referenceMarks"))),
            )
            for b, a in zip(before, after, strict=True)
        ),
        pictures=tuple(some_pictures(s, chosen.decision)),
        wrong_answers=shown(s, "test" if final.test else "validation", final.kept, chosen.decision),
        wrong_kinds=mistakes.kinds if mistakes else {},
        attempts=tuple(s.progress.attempts()),
        notes=tuple(notes),
        license=license_of(s.model_folder),
        versions=versions(),
    )


def _marks(marks: list[list[Any]] | None) -> Marks:
    return tuple((start, end, label) for start, end, label in marks or ())


def write_model_files(s: Session, folder: Path) -> None:
    """The tuned model as `from_pretrained` and serving engines load it, judged by a few examples."""
    profile, examples = s.data.profile, some_examples(s.data)
    fold_units(s.model)
    write_model(
        folder,
        s.model,
        s.model_folder,
        Probe.of(examples, s.ranks.device),
        adapter=method_for(s.config.method).adapter,
        base=loadable(s.config.model.uri),
        revision=profile.model_revision,
        merge=s.config.output.merge,
        stops=learned_ends(examples, s.data.tokenizer.special_ids) if profile.ends is None else profile.ends,
    )


def some_pictures(s: Session, decision: Decision) -> Sequence[Picture]:
    """Some of the rows that were judged, where they are to be looked at."""
    data, task = s.data, s.data.task
    split = next((split for split in ("test", "validation") if data.rows_in(split)), None)
    if task.pictures is None or split is None:
        return ()
    was_training = s.model.training
    s.model.eval()
    try:
        with data.stream(split) as stream, torch.inference_mode(), s.ranks.autocast():
            rows = [data.opened(row) for row in islice(stream.rows(), PICTURES)]  # files as they are stored
            return task.pictures(s.model, rows, data.facts, decision, data.tokenizer)
    finally:
        s.model.train(was_training)


def some_examples(data: TrainingData) -> list[Example]:
    """A few rows as the model takes them; held-out ones if there are any."""
    split = next(split for split in ("test", "validation", "train") if data.rows_in(split))
    with data.stream(split) as stream:
        rows = islice(stream.numbered(), EXAMPLES)
        return [example for number, row in rows for example in data.encode(row, number)]
