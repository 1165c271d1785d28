"""The prepare step: find out everything that can go wrong before an accelerator is asked for, and write down what was
found.

`_check` lists the checks in their order, the cheap ones first; each subject stands in a file of `checks`. What is read
of the rows (`rows`) stands apart from what is made of it. A profile of the same job, configuration and listing is
reused as it stands. Every refusal names the field, or the file and line (I9).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

import numpy as np

from finetune_api.exits import JobError
from finetune_api.report import Stage
from finetune_api.run import RunConfig
from finetune_api.status import DataProfile, Finding, Resolved
from finetune_api.text import clip
from finetune_trainer.model.labels import head_findings, head_labels
from finetune_trainer.prepare.checks import rows as row_checks
from finetune_trainer.prepare.checks import storage as storage_checks
from finetune_trainer.prepare.checks.columns import check_columns, check_group_column, columns_left_out
from finetune_trainer.prepare.checks.labels import balance, check_labels, given_labels
from finetune_trainer.prepare.checks.lengths import check_lengths
from finetune_trainer.prepare.checks.many_rows import many_rows
from finetune_trainer.prepare.checks.metric import check_metric
from finetune_trainer.prepare.checks.model import ModelFacts, check_model
from finetune_trainer.prepare.checks.model_fits import check_model_fits
from finetune_trainer.prepare.checks.numbers import check_numbers
from finetune_trainer.prepare.checks.output_owner import claim_output, claimed_at
from finetune_trainer.prepare.checks.rows import check_any_usable, check_bad_rows
from finetune_trainer.prepare.checks.splits import check_splits
from finetune_trainer.prepare.findings import most_important
from finetune_trainer.prepare.layout.held_out import copy_held_out
from finetune_trainer.prepare.layout.layout import lay_out
from finetune_trainer.prepare.parts.assign import assign
from finetune_trainer.prepare.reuse import basis_of, reusable_profile
from finetune_trainer.prepare.rows.bad_rows import BadRows
from finetune_trainer.prepare.rows.evidence import Evidence
from finetune_trainer.prepare.rows.files import checks_for
from finetune_trainer.report.reporter import Reporter
from finetune_trainer.storage import Location, location
from finetune_trainer.stream.blocks import sweep_cache
from finetune_trainer.stream.files import Files
from finetune_trainer.stream.manifest import DataManifest
from finetune_trainer.stream.parts import digest_of
from finetune_trainer.stream.profile import Profile, save_profile
from finetune_trainer.stream.sources.listing import Listing
from finetune_trainer.stream.sources.source import list_sources
from finetune_trainer.stream.splits import SET
from finetune_trainer.tasks.base import JobFacts, Task, role_of
from finetune_trainer.tasks.embeddings import within_embeddings
from finetune_trainer.tasks.registry import task_of

log = logging.getLogger(__name__)


def prepare(config: RunConfig, reporter: Reporter) -> Profile:
    """Check everything, write manifest and profile, report. Raises JobError."""
    reporter.update(stage=Stage.PREPARING)
    out = location(config.output.uri, config.storage)
    claim_output(config, out)
    now, task = claimed_at(out), task_of(config)
    model = check_model(config, task, now)
    listings = list_sources(config)
    basis = basis_of(config, model.revision, listings)
    profile = reusable_profile(config, out, basis)
    if profile is None:
        evidence = Evidence(BadRows(config.data.max_bad_rows))
        try:
            manifest, profile, parts = _check(config, out, task, model, listings, evidence, basis, now)
        except JobError:
            _report_failure(out, evidence, reporter)
            raise
        save_profile(out, manifest, profile, parts)
    else:
        log.info("the profile of an earlier prepare step still holds")
    reporter.update(data=profile.data, resolved=profile.resolved)
    return profile


def _check(
    config: RunConfig,
    out: Location,
    task: Task,
    model: ModelFacts,
    listings: Mapping[str, Listing],
    evidence: Evidence,
    basis: str,
    now: datetime,
) -> tuple[DataManifest, Profile, np.ndarray | None]:
    """All checks of model and data, in order, and what they come to; with the parts of the training rows, if there are
    any.
    """
    given = given_labels(config)
    columns, label_names = check_columns(config, task, listings["train"])
    group = check_group_column(config, task, columns, listings["train"])
    fit = check_model_fits(config, task.head, model)  # importing the model's class takes seconds

    task = within_embeddings(task, fit.beyond, fit.embeddings)
    known = given or label_names or task.known_classes(columns) or None
    of_head = head_labels(model.config, task.head) if task.info.labels else ()
    files = Files(config, {role: listing.revision for role, listing in listings.items()})
    evidence.files = checks_for(task, columns, files, out)
    allowed = None if known is None else task.naming.allowed(known, columns)
    evidence.read(listings["train"], task, columns, allowed, label_names, group)
    check_any_usable(evidence)
    labels = check_labels(known, task, columns, evidence, of_head) if task.info.labels else None
    classes = None if labels is None else task.naming.classes(labels, columns)
    for role, listing in listings.items():
        if role != "train":
            evidence.read(listing, task, columns, classes, label_names)
    check_bad_rows(evidence)
    spread = check_numbers(task, columns, evidence.train)

    assigned = assign(config, task, evidence.train)
    parts = None if assigned is None else assigned.parts
    splits = check_splits(config.data, evidence, task.info.unit, assigned)
    spread = spread and dataclasses.replace(spread, learned=splits.mean)
    label_counts = tuple(splits.classes.get(name, 0) for name in labels) if labels and classes == labels else None
    facts = JobFacts.of(config, task, columns, labels, label_counts, splits.rows["train"], spread)
    check_metric(config, task, facts)
    fold_rows = () if assigned is None else assigned.fold_rows
    lengths = check_lengths(config, task, model, facts, evidence, splits.rows, fold_rows)
    drawn = None if parts is None else digest_of(parts)
    layout = lay_out(config, out, listings, evidence.surveys, columns, evidence.bad_rows.rows, drawn)
    copies = copy_held_out(config, out, layout.manifest, columns.values(), parts)

    findings: list[Finding] = [
        *evidence.bad_rows.findings(),
        *row_checks.empty_objects(evidence.surveys),
        *(finding for listing in listings.values() for finding in listing.findings),
        *splits.findings,
        *many_rows(config, splits.rows["train"]),
        *(() if assigned is None else assigned.findings),
        *columns_left_out(config, task, columns, evidence.columns, splits.rows["train"], group),
        *lengths.findings,
        *(evidence.files.findings() if evidence.files else ()),
        *fit.findings,
        *(() if classes is None else balance(splits.classes, classes, splits.rows["train"])),
        *(() if labels is None else head_findings(labels, of_head)),
        *row_checks.empty_texts(evidence.surveys),
        *row_checks.unicode_forms(evidence.surveys),
        *storage_checks.conditional_writes(out),
        *layout.findings,
        *storage_checks.held_out_copies(copies, out),
    ]
    profile = Profile(
        job_id=config.job.id,
        basis=basis,
        digest=layout.digest,
        data=DataProfile(
            train_rows=splits.rows["train"],
            validation_rows=splits.rows.get("validation", 0),
            test_rows=splits.rows.get("test", 0),
            bad_rows=evidence.bad_rows.count,
            tokens_per_epoch=lengths.tokens_per_epoch,
            lengths=lengths.lengths,
            objects=evidence.objects,
            bytes=evidence.bytes,
            labels=tuple(name[:64] for name in labels[:20]) if labels else None,
            label_count=len(labels) if labels else None,
            manifest_digest=layout.manifest.digest,
            findings=most_important(findings),
        ),
        resolved=_resolved(lengths.resolved, model, listings["train"].revision, columns),
        columns=columns,
        labels=labels,
        label_counts=label_counts,
        bad=evidence.bad_rows.rows,
        model_revision=model.revision,
        conditional_writes=out.store.conditional_writes,
        order=layout.order,
        held_out=copies,
        now=now.isoformat(),
        ends=lengths.ends,
        label_names=label_names,
        spread=spread,
        set_rows={split: rows for split, rows in splits.rows.items() if split.startswith(SET)},
        parts=drawn,
        fold_rows=fold_rows,
    )
    return layout.manifest, profile, parts


def _resolved(resolved: Resolved, model: ModelFacts, revision: str | None, columns: Mapping[str, str]) -> Resolved:
    """With what the checks found out of model and data. `revision`: of the training rows."""
    found = {
        "model_revision": model.revision,
        "data_revision": revision,
        "architecture": model.class_name,
        "model_bytes": model.bytes,
        "columns": {role: clip(", ".join(names), 128) for role, names in _by_role(columns).items()},
    }
    return Resolved(**{**dict(resolved), **found})


def _by_role(columns: Mapping[str, str]) -> dict[str, list[str]]:
    """Role -> its columns."""
    found: dict[str, list[str]] = {}
    for entry, name in columns.items():
        found.setdefault(role_of(entry), []).append(name)
    return found


def _report_failure(out: Location, evidence: Evidence, reporter: Reporter) -> None:
    """Show in status what was found until the check that failed."""
    with suppress(JobError):
        sweep_cache(out)  # copies of the user's rows are not left behind
    findings = most_important([*evidence.bad_rows.findings(), *row_checks.empty_objects(evidence.surveys)])
    if evidence.surveys or findings:
        reporter.update(
            data=DataProfile(
                bad_rows=evidence.bad_rows.count, findings=findings, objects=evidence.objects, bytes=evidence.bytes
            )
        )
