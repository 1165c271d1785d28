"""The end of a run: the best weights, the final evaluation on the test rows, texts for the report, and the committed
output.

Other ranks wait for rank 0's commit, so that exit 0 means on every one of them that the artefacts are committed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from finetune_api.exits import JobError, Reason
from finetune_api.report import Stage
from finetune_trainer.batches.example import Example
from finetune_trainer.checkpoint import CheckpointRef
from finetune_trainer.evaluate.loop import Stopped, evaluate
from finetune_trainer.evaluate.tally import Tally
from finetune_trainer.methods import method_for
from finetune_trainer.output import ClassScore, Result, Sample, commit, export, versions
from finetune_trainer.output.judge import Judge
from finetune_trainer.output.model import write_model
from finetune_trainer.output.result import license_of, loadable
from finetune_trainer.stream import sweep_cache
from finetune_trainer.tasks.ends import learned_ends
from finetune_trainer.train import skipped_rows
from finetune_trainer.train.session import Session, scratch_folder

EXAMPLES = 32
"""Rows by which what is exported is judged."""


def judge(s: Session, split: str) -> Tally:
    """The model on this split, over all ranks.

    Collective; raises Stopped, NothingToLearn or NonFiniteLoss on all ranks together.
    """
    empty = 0

    def examples() -> Iterator[Example]:
        nonlocal empty
        for row in stream.rows():
            encoded = s.encode(row)
            empty += not encoded
            yield from encoded

    with s.stream(split) as stream:
        tally = s.task.tally(s.profile.labels or ())
        evaluate(
            s.model,
            examples(),
            s.task.objective(),
            tally,
            s.ranks,
            size=s.micro_batch_size,
            pad_id=s.tokenizer.pad_id,
            max_length=s.max_length,
            stop=s.stop,
        )
    skipped_rows.judged(s, split, int(s.ranks.sum([empty])[0]))
    check_finite(tally.metrics(), s.resolved.metric or "loss", split, s.state.step)
    return tally


def check_finite(metrics: dict[str, float], metric: str, split: str, step: int) -> None:
    """A model whose loss, or whose metric that chooses, is no number cannot be judged, nor be the best.

    Raises NonFiniteLoss.
    """
    for name in ("loss", metric):
        if not math.isfinite(metrics[name]):
            also = "" if name == "loss" else f", at a loss of {metrics['loss']:.6g}"
            raise JobError(
                Reason.NON_FINITE_LOSS, f"the {name} on the {split} rows became {metrics[name]} at step {step}{also}"
            )


def finish(s: Session) -> None:
    """Test, export and commit; ends when the result is committed. Collective."""
    take_best(s)
    tally = None
    if s.rows_in("test"):
        s.progress.stage(Stage.TESTING)
        try:
            with s.progress.clock("evaluate"):
                tally = judge(s, "test")
        except Stopped:
            raise leave(s) from None
        s.progress.report(test={**tally.metrics(), **tally.intervals()})
        s.events.add("test", s.state.step, **tally.metrics())
    s.ranks.sum([0.0])  # all have come as far: nothing is committed beside a rank that has failed
    s.ranks.from_first(lambda: write(s, tally))


def take_best(s: Session) -> None:
    """Load the best checkpoint's weights, if they are to be the output and are not those of the last step.

    Collective.
    """
    if s.first:
        with s.progress.clock("checkpoint"):
            s.checkpoints.close()

    def best() -> dict[str, Any] | None:
        found = s.checkpoints.best() if s.config.checkpoints.keep_best else None
        return found.to_json() if found and found.step != s.state.step else None

    chosen = s.ranks.from_first(best)
    if chosen is not None:
        s.strategy.load_weights(s.checkpoints.load(CheckpointRef.from_json(chosen), only="model.").tensors)


def write(s: Session, tally: Tally | None) -> bool:
    """Export to scratch and commit. Rank 0."""
    s.progress.stage(Stage.EXPORTING)
    with s.progress.clock("export"), scratch_folder(s.config, "export") as parent:
        result = result_of(s, tally)
        folder = parent / "output"
        export(folder, result, s.events, lambda path: _write_model(s, path))
        if s.stop():
            raise leave(s)
        output = commit(s.out, folder, s.config, s.progress.snapshot, s.checkpoints.check_newest)
    sweep_cache(s.out)
    s.progress.report(stage=Stage.FINISHED, output=output)
    return True


def leave(s: Session) -> JobError:
    """Stopped after the last step: its checkpoint is committed already, and the next attempt makes the end again."""
    return JobError(
        Reason.INTERRUPTED, f"the run was told to stop after step {s.state.step}, before its output was committed"
    )


def result_of(s: Session, tally: Tally | None) -> Result:
    """All that the report is made of."""
    details = tally.report() if tally is not None else None
    notes = list(s.checkpoints.notes)
    notes += [f"{message}." for message in skipped_rows.messages(s.state.skipped_rows, s.max_length).values()]
    if s.state.stopped_early:
        notes.append(f"Stopped early at step {s.state.step}: {s.resolved.metric} no longer improved.")
    before = s.state.samples
    after = samples(s) if before else []
    return Result(
        config=s.config,
        report=s.progress.snapshot,
        labels=s.profile.labels or (),
        classes=tuple(ClassScore(**c) for c in details["classes"]) if details else (),
        confusion=tuple(tuple(row) for row in details["confusion"]) if details else None,
        samples=tuple(
            Sample(b["prompt"], b["text"], a["text"], b.get("reference")) for b, a in zip(before, after, strict=True)
        ),
        attempts=tuple(s.progress.attempts()),
        notes=tuple(notes),
        license=license_of(s.model_folder),
        versions=versions(),
    )


def samples(s: Session) -> list[dict[str, str]]:
    """What the model writes to a few validation rows; none where its task writes none, or without such rows. Rank 0."""
    if s.task.samples is None or not s.rows_in("validation"):
        return []
    with s.stream("validation") as stream, torch.inference_mode(), s.ranks.autocast():
        return s.task.samples(
            s.model,
            stream.rows(),
            s.profile.columns,
            s.tokenizer,
            ends={*(s.profile.ends or ()), s.tokenizer.eos_id},
            max_length=s.max_length,
            stop=s.stop,
        )


def _write_model(s: Session, folder: Path) -> None:
    seen = _some_examples(s)
    write_model(
        folder,
        s.model,
        s.model_folder,
        Judge.of(seen, s.ranks.device),
        adapter=method_for(s.config.method).adapter,
        base=loadable(s.config.model.uri),
        revision=s.profile.model_revision,
        merge=s.config.output.merge,
        stops=learned_ends(seen, s.tokenizer.special_ids) if s.profile.ends is None else s.profile.ends,
    )


def _some_examples(s: Session) -> list[Example]:
    """A few rows as the model takes them; held-out ones if there are any. Rank 0."""
    with s.stream(next(split for split in ("test", "validation", "train") if s.rows_in(split))) as stream:
        return [example for row in islice(stream.rows(), EXAMPLES) for example in s.encode(row)]
