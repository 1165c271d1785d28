"""The predict step as a process: answers go to a file, progress and the last word to the standard output, as JSON."""

from __future__ import annotations

import itertools
import json
import logging
import os
import time
from typing import Any

from finetune_api.exits import COMPLETE, EXITS, JobError
from finetune_api.predict import PredictConfig, PredictReport
from finetune_api.run import World
from finetune_trainer.failures.problems import problem_for
from finetune_trainer.predict.described import Described, describe
from finetune_trainer.predict.rows import ADVICE, Row, check_columns, good_rows
from finetune_trainer.prepare.rows.bad_rows import BadRows
from finetune_trainer.prepare.rows.files import FileChecks, checks_for
from finetune_trainer.stream.files import Files
from finetune_trainer.stream.sources.source import list_source
from finetune_trainer.tasks.answers import written

log = logging.getLogger(__name__)
WINDOW = 256
"""Rows that are sorted by length together; bounds memory."""
OPENED = 16
"""Rows of files, whose content is held together."""
TELL_SECONDS = 1.0


def main(config: PredictConfig) -> int:
    """Answer the rows. The exit code: 0, or the failure's."""
    try:
        _predict(config)
        return COMPLETE
    except (Exception, KeyboardInterrupt) as error:
        problem = problem_for(error, None, [config.scratch])
        if not isinstance(error, JobError):
            log.exception("the predict step failed")
        _tell(PredictReport(problem=problem))
        return EXITS[problem.reason].code or 44


def _predict(config: PredictConfig) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", str(config.threads))
    from finetune_trainer.predict.load import at, load, run_config  # torch reads the variable when it is imported

    out = at(config)
    said = describe(out, config.columns)
    name = said.task.info.name
    _tell(PredictReport(stage="reading the rows", task=name))
    listing = list_source(run_config(config, name, config.output), "train")
    columns = check_columns(listing, said.task, said.facts.columns, config.answer)
    bad = BadRows(config.max_bad_rows)
    read = Files(run_config(config, name, config.output), {"train": listing.revision})
    files = checks_for(said.task, columns, read, out)
    total = sum(1 for _ in good_rows(listing, said.task, columns, bad, files))
    if bad.too_many:
        raise _without_field(bad.refusal())
    _tell(PredictReport(stage="loading the model", task=name, total=total))
    import torch

    from finetune_trainer.distributed.device import device_for, precision_for
    from finetune_trainer.distributed.ranks import Ranks
    from finetune_trainer.model.load import token_embeddings
    from finetune_trainer.tasks.embeddings import within_embeddings

    torch.set_num_threads(config.threads)
    device = device_for(World(device=config.device), 0)
    loaded = load(config, out, said, device)
    known = token_embeddings(loaded.model)
    task = within_embeddings(said.task, loaded.processor.beyond(known), known)
    bad = BadRows(config.max_bad_rows)  # once more, and now with those whose tokens the model does not know
    rows = good_rows(listing, task, columns, bad, files)
    ranks = Ranks.alone()
    ranks.device, ranks.precision = device, precision_for("auto", device)
    done, told = 0, time.monotonic()
    with open(config.target, "w", encoding="utf-8") as target, torch.inference_mode(), ranks.autocast():
        while window := list(itertools.islice(rows, WINDOW)):
            found = _answers(said, loaded, [given for _, given in window], files)
            for (row, _), answer in zip(window, found, strict=True):
                line = {**written(row), config.answer: answer}
                target.write(json.dumps(line, ensure_ascii=False) + "\n")
            done += len(window)
            if time.monotonic() - told > TELL_SECONDS:
                told = time.monotonic()
                _tell(PredictReport(stage="answering", task=name, rows=done, total=total))
    if bad.too_many:
        raise _without_field(bad.refusal())
    _tell(PredictReport(stage="done", task=name, rows=done, total=total, findings=tuple(bad.findings())))


def _answers(said: Described, loaded: Any, rows: list[Row], files: FileChecks | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    size = len(rows) if files is None else OPENED
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        if files is not None:
            part = [{**row, files.column: files.files.content(row[files.column])} for row in part]
        found += said.task.predict(loaded.model, part, said.facts, said.decision, loaded.processor, said.max_length)
    return [{name: written(value) for name, value in answer.items()} for answer in found]


def _without_field(error: JobError) -> JobError:
    """A row's fault in words for whoever has no spec before them."""
    return JobError(error.reason, error.message, hint=ADVICE)


def _tell(report: PredictReport) -> None:
    print(report.model_dump_json(by_alias=True, exclude_none=True), flush=True)
