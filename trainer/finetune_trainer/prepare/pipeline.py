"""The prepare step: find out everything that can go wrong before an accelerator is asked for, and write down what was
found.

In order: the output can be written and is this job's; the model is there and fits the task; the data is there; every
row is
looked at; the sample is tokenised; what the spec left open is resolved. A profile of the same job, configuration and
listing
is reused as it stands. Every refusal names the field, or the file and line (I9).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import numpy as np

from finetune_api.exits import JobError, Reason
from finetune_api.forms import one_form
from finetune_api.report import Stage
from finetune_api.resolve import resolve
from finetune_api.run import RunConfig
from finetune_api.status import DataProfile, Finding, Resolved
from finetune_api.text import clip
from finetune_trainer.model import facts, fetch
from finetune_trainer.model.labels import head_findings, head_labels, in_their_order
from finetune_trainer.model.size import model_bytes
from finetune_trainer.model.tokenizer import Tokenizer, load_tokenizer
from finetune_trainer.output import completed
from finetune_trainer.prepare import findings as look
from finetune_trainer.prepare.checks.columns import columns_left_out, label_names, pick_columns
from finetune_trainer.prepare.checks.lengths import chat_findings, judge, measure
from finetune_trainer.prepare.checks.model_fits import fit
from finetune_trainer.prepare.checks.output_owner import claim_output, claimed_at
from finetune_trainer.prepare.layout.copies import HeldOut
from finetune_trainer.prepare.layout.layout import lay_out
from finetune_trainer.prepare.rows.bad_rows import BadRows
from finetune_trainer.prepare.rows.survey import Sample, Surveyed, sort_labels, survey
from finetune_trainer.report.reporter import Reporter
from finetune_trainer.storage import Location, blaming, location
from finetune_trainer.stream.blocks import CACHE, sweep_cache
from finetune_trainer.stream.manifest import DataManifest
from finetune_trainer.stream.profile import Profile, find_profile, save_profile
from finetune_trainer.stream.sources.listing import Listing, field_of
from finetune_trainer.stream.sources.source import list_source
from finetune_trainer.stream.splits import HELD_OUT, interval_of
from finetune_trainer.tasks.base import Task
from finetune_trainer.tasks.embeddings import within_embeddings
from finetune_trainer.tasks.registry import task_for

log = logging.getLogger(__name__)
SAMPLE_SEED = 20_250_101  # fixed: the estimate does not hang on the job's seed


def prepare(config: RunConfig, reporter: Reporter) -> Profile:
    """Check everything, write manifest and profile, report. Raises JobError."""
    reporter.update(stage=Stage.PREPARING)
    out = location(config.output.uri, config.storage)
    claim_output(config, out)
    task = task_for(config.task)
    model = _Model(config, task, claimed_at(out))
    listings = {role: _list(config, role) for role in ("train", *HELD_OUT) if _has_source(config, role)}
    basis = _basis(config, model.revision, listings)
    profile = _reusable(config, out, basis)
    if profile is None:
        manifest, profile = _examine(config, task, out, model, listings, basis, reporter)
        save_profile(out, manifest, profile)
    else:
        log.info("the profile of an earlier prepare step still holds")
    reporter.update(data=profile.data, resolved=profile.resolved)
    return profile


def _list(config: RunConfig, role: str) -> Listing:
    with blaming(field_of(role)):
        return list_source(config, role)


def _has_source(config: RunConfig, role: str) -> bool:
    interval = interval_of(role, config.data)
    return interval is not None and interval.source == role


class _Model:
    """The model's small files: where they are, what they say.

    Its chat template takes `now` for the present, here and ever after.
    """

    def __init__(self, config: RunConfig, task: Task, now: datetime) -> None:
        self.now = now
        self.revision = fetch.resolve_revision(config)
        self.folder = folder = fetch.fetch_model(config, weights=False, revision=self.revision)
        self.config = facts.read_config(folder)
        architecture = facts.architecture(self.config, task.head)
        self.class_name = architecture.class_name
        self.bytes = model_bytes(config, self.revision)
        self.tokenizer: Tokenizer = load_tokenizer(folder, now)
        self.max_length = facts.model_max_length(architecture, self.tokenizer.max_length)
        wanted = config.training.max_length
        if wanted is not None and wanted > self.max_length:
            raise JobError(
                Reason.INVALID_CONFIG,
                f"maxLength {wanted} is more than the {self.max_length} tokens that the model takes",
                field="spec.training.maxLength",
                hint=f"Set it to {self.max_length} or less, or leave it out.",
            )


def _basis(config: RunConfig, revision: str | None, listings: dict[str, Listing]) -> str:
    """Digests of the configuration and of the listings, between them all that a profile is made from.

    How many processes there are, the attempt, and where reports go are not: a job may go on with other numbers of
    workers.
    """
    told = config.to_json()
    kept = {name: told.get(name) for name in ("task", "model", "data", "method", "training", "evaluation")}
    lists = {role: listing.digest for role, listing in listings.items()}
    return f"{_digest([kept, revision])}:{_digest(lists)}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _reusable(config: RunConfig, out: Location, basis: str) -> Profile | None:
    """The profile that is there, if it was made from the same; JobError if checkpoints hang on one that was not."""
    found = find_profile(out)
    if found is None or found[1].job_id != config.job.id:
        return None
    if found[1].basis == basis:
        return found[1] if _copies_are_there(out, *found) or completed(out, config) else None
    if next(iter(out.list("ckpt/")), None) is None:
        return None
    if found[1].basis.partition(":")[0] != basis.partition(":")[0]:
        raise JobError(
            Reason.CHECKPOINT_MISMATCH,
            f"{out.uri('ckpt')} holds checkpoints of this job with another configuration",
            field="spec",
            hint="Restore the configuration to go on, or start a new job with an output of its own.",
        )
    raise JobError(
        Reason.DATA_CHANGED,
        "the objects that the data URIs match are not those that this job's checkpoints were trained on",
        field="spec.data",
        hint="Restore the data to go on, or start a new job with an output of its own.",
    )


def _copies_are_there(out: Location, manifest: DataManifest, profile: Profile) -> bool:
    """Whether all blocks that were copied still lie in the cache: they are swept when a job has succeeded."""
    blocks = [b for source in manifest.sources.values() for item in source.objects for b in item.blocks]
    blocks += [b for copies in profile.held_out.values() for b in copies]
    wanted = {f"{CACHE}{block.cache}" for block in blocks if block.cache}
    return not wanted or wanted <= {info.key for info in out.list(CACHE)}


def _examine(
    config: RunConfig,
    task: Task,
    out: Location,
    model: _Model,
    listings: dict[str, Listing],
    basis: str,
    reporter: Reporter,
) -> tuple[DataManifest, Profile]:
    """Look at everything. What was found until a failure is reported before it is raised: status shows both."""
    bad_rows, seen = BadRows(config.data.max_bad_rows), dict[str, Surveyed]()
    try:
        return _profiled(config, task, out, model, listings, basis, bad_rows, seen)
    except JobError:
        with suppress(JobError):
            sweep_cache(out)  # copies of the user's rows are not left behind
        noted = look.most_important([*bad_rows.findings(), *look.without_rows(seen)])
        if seen or noted:
            reporter.update(
                data=DataProfile(bad_rows=bad_rows.count, findings=noted, objects=_objects(seen), bytes=_bytes(seen))
            )
        raise


def _objects(seen: dict[str, Surveyed]) -> int:
    return sum(len(found.source.objects) for found in seen.values())


def _bytes(seen: dict[str, Surveyed]) -> int:
    return sum(found.bytes for found in seen.values())


def _profiled(
    config: RunConfig,
    task: Task,
    out: Location,
    model: _Model,
    listings: dict[str, Listing],
    basis: str,
    bad_rows: BadRows,
    seen: dict[str, Surveyed],
) -> tuple[DataManifest, Profile]:
    given = _given_labels(config)
    with blaming(field_of("train")):  # what costs little to see goes first: the model's classes take seconds to import
        columns = pick_columns(config, task, listings["train"])
        names = label_names(config, listings["train"], columns.get("label"))
    stored = fetch.stored_weights(config, revision=model.revision)
    fits = fit(config, task.head, model.folder, stored, model.tokenizer)
    task = within_embeddings(task, fits.beyond, fits.embeddings)
    samples = {role: Sample(SAMPLE_SEED) for role in listings}
    held_out = HeldOut(config.data, out)
    with blaming(field_of("train")):
        known = given or names
        seen["train"] = survey(listings["train"], task, columns, known, bad_rows, samples["train"], held_out, names)
    if not seen["train"].usable:
        raise bad_rows.refusal() if bad_rows.too_many else _empty_split("train", True, seen["train"])
    of_head = head_labels(model.config, task.head) if task.info.labels else ()
    labels = _labels(known, seen["train"], columns, bad_rows, of_head) if task.info.labels else None
    for role in listings:
        if role != "train":
            with blaming(field_of(role)):
                seen[role] = survey(listings[role], task, columns, labels, bad_rows, samples[role], label_names=names)
    if bad_rows.too_many:
        raise bad_rows.refusal()
    told = [finding for listing in listings.values() for finding in listing.findings]
    noted: list[Finding] = [*bad_rows.findings(), *look.without_rows(seen), *told]
    counts, classes, overlaps = _splits(config, seen, bad_rows.rows)
    noted += overlaps
    there = set().union(*(found.columns for found in seen.values()))
    noted += columns_left_out(config, task, columns, there, counts["train"])
    measured = measure(samples["train"].rows, task, columns, labels, model.tokenizer)
    resolved = resolve(
        config,
        train_rows=counts["train"],
        model_max_length=model.max_length,
        longest_row=measured.longest,
        p99_length=measured.quantile(0.99),
    )
    assert resolved.max_length is not None
    lengths, tokens, more = judge(
        measured, task, columns, labels, model.tokenizer, resolved.max_length, counts["train"]
    )
    noted += more
    noted += chat_findings(measured, "train", seen["train"].usable, columns, model.tokenizer)
    for role in seen:
        if role != "train":
            found = measure(samples[role].rows, task, columns, labels, model.tokenizer)
            noted += judge(found, task, columns, labels, model.tokenizer, resolved.max_length, counts[role])[2]
            noted += chat_findings(found, role, seen[role].usable, columns, model.tokenizer)
    noted += fits.findings
    if labels is not None:
        noted += look.balance(classes, labels)
        noted += head_findings(labels, of_head)
    noted += [*_empty(seen), *look.other_forms(seen)]
    if not out.store.conditional_writes:
        noted.append(look.unconditional(out.uri()))
    layout = lay_out(config, out, listings, seen, columns, bad_rows.rows)
    manifest = layout.manifest
    copies = held_out.done()
    noted += [*layout.findings, *look.copied(copies, out)]
    revision = listings["train"].revision
    resolved = Resolved(
        **{
            **dict(resolved),
            "model_revision": model.revision,
            "data_revision": revision,
            "architecture": model.class_name,
            "model_bytes": model.bytes,
            "columns": {role: clip(name, 128) for role, name in columns.items()},
        }
    )
    data = DataProfile(
        train_rows=counts["train"],
        validation_rows=counts.get("validation", 0),
        test_rows=counts.get("test", 0),
        bad_rows=bad_rows.count,
        tokens_per_epoch=tokens,
        lengths=lengths,
        objects=_objects(seen),
        bytes=_bytes(seen),
        labels=tuple(name[:64] for name in labels[:20]) if labels else None,
        label_count=len(labels) if labels else None,
        manifest_digest=manifest.digest,
        findings=look.most_important(noted),
    )
    profile = Profile(
        job_id=config.job.id,
        basis=basis,
        digest=layout.digest,
        data=data,
        resolved=resolved,
        columns=columns,
        labels=labels,
        bad=bad_rows.rows,
        model_revision=model.revision,
        conditional_writes=out.store.conditional_writes,
        order=layout.order,
        held_out=copies,
        now=model.now.isoformat(),
        ends=measured.ends,
        label_names=names,
    )
    return manifest, profile


def _given_labels(config: RunConfig) -> tuple[str, ...] | None:
    """spec.data.labels in the form in which classes are compared."""
    if config.data.labels is None:
        return None
    labels = tuple(map(one_form, config.data.labels))
    if len(set(labels)) < len(labels):
        twice = next(name for name in labels if labels.count(name) > 1)
        raise JobError(
            Reason.INVALID_CONFIG,
            f"label {twice!r} is named twice, in two Unicode forms that look alike",
            field="spec.data.labels",
            hint="Name each label once.",
        )
    return labels


def _labels(
    known: Sequence[str] | None, train: Surveyed, columns: dict[str, str], bad_rows: BadRows, of_head: Sequence[str]
) -> tuple[str, ...]:
    labels = known or in_their_order(sort_labels(list(train.label_counts)), of_head)
    if len(train.label_counts) == 1 and not bad_rows.too_many:
        (only,) = train.label_counts
        raise JobError(
            Reason.INVALID_DATA,
            f"{train.source.uri}: all {train.usable} usable rows have the class {only!r} (column "
            f"{columns['label']!r}): there is nothing to tell apart",
            field="spec.data.columns.label",
            hint=(
                "Check that spec.data.columns.label is the right column, and that "
                "spec.data.train.uri matches objects of all classes."
            ),
        )
    return tuple(labels)


def _splits(
    config: RunConfig, seen: dict[str, Surveyed], bad: dict[str, dict[int, tuple[int, ...]]]
) -> tuple[dict[str, int], dict[str, int], list[Finding]]:
    """Usable rows of each split, training rows of each class, and what the comparison of the splits' texts showed.

    Raises JobError for an empty split.
    """
    counts, classes = dict[str, int](), dict[str, int]()
    noted: list[Finding] = []
    train = np.zeros(0, dtype=np.uint64)
    for split in ("train", *HELD_OUT):
        interval = interval_of(split, config.data)
        if interval is None:
            continue
        where = seen[interval.source]
        numbers = look.split_numbers(where, bad.get(interval.source, {}), interval)
        counts[split] = len(numbers)
        if not len(numbers):
            raise _empty_split(split, interval.whole, where)
        prints = np.frombuffer(where.prints, dtype=np.uint64)[numbers]
        if split == "train":
            train, classes = prints, look.class_counts(where, numbers)
            noted += look.duplicates(where, numbers)
        else:
            noted += look.overlap(train, prints, split, where, numbers)
            noted += look.unjudged(classes, look.class_counts(where, numbers), split)
    return counts, classes, noted


def _empty_split(split: str, whole: bool, where: Surveyed) -> JobError:
    if whole:
        return JobError(
            Reason.INVALID_DATA,
            f"{where.source.uri} has no usable rows",
            field=field_of(split),
            hint="Check that the objects are not empty, and that the URI matches the right ones.",
        )
    return JobError(
        Reason.INVALID_CONFIG,
        f"the {split} share of {where.usable} rows holds no row",
        field=f"spec.data.{split}",
        hint="Provide more rows, change the fraction, or name objects of their own.",
    )


def _empty(seen: dict[str, Surveyed]) -> Sequence[Finding]:
    count = sum(s.empty_texts for s in seen.values())
    first = next((s.first_empty for s in seen.values() if s.first_empty), None)
    if first is None:
        return ()
    return (
        Finding(
            kind="EmptyText",
            count=count,
            file=first[0][-256:],
            line=first[1],
            message=f"{count} rows have an empty text.",
        ),
    )
