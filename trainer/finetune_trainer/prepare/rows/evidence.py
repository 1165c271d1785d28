"""What was read of the rows so far. It outlives a failed check, so that status shows what was found until then."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from finetune_trainer.model.processor import Processor
from finetune_trainer.prepare.rows.bad_rows import BadRows
from finetune_trainer.prepare.rows.files import FileChecks
from finetune_trainer.prepare.rows.sample import Sample, SampledRow
from finetune_trainer.prepare.rows.survey import SourceSurvey, survey
from finetune_trainer.storage import blaming
from finetune_trainer.stream.sources.listing import Listing
from finetune_trainer.tasks.base import Task

FEW = 16
"""Rows that are encoded for trial where their lengths are known."""


@dataclass(slots=True)
class Evidence:
    """By role: what was seen of its source, and a sample of the rows. `bad_rows` counts over all sources, `files`
    opens what rows stand for."""

    bad_rows: BadRows
    files: FileChecks | None = None
    surveys: dict[str, SourceSurvey] = field(default_factory=dict)
    samples: dict[str, Sequence[SampledRow]] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    """What names each source in the manifest."""

    def read(
        self,
        listing: Listing,
        task: Task,
        columns: Mapping[str, str],
        labels: Sequence[str] | None,
        label_names: Sequence[str] | None,
        group: str | None = None,
    ) -> None:
        """Read all rows of a source; `group`: the column that they are grouped by. Raises JobError."""
        sample = Sample()
        self.fields[listing.role] = listing.field
        with blaming(listing.field):
            self.surveys[listing.role] = survey(
                listing, task, columns, labels, self.bad_rows, sample, label_names, self.files, group
            )
        self.samples[listing.role] = sample.rows

    def rows_to_measure(self, role: str, processor: Processor) -> Sequence[SampledRow]:
        """The sample of a source, with the files that its rows stand for: a few of them where all have one length."""
        rows = self.samples[role]
        if self.files is None:
            return rows
        column, files = self.files.column, self.files.files
        return [
            dataclasses.replace(row, values={**row.values, column: files.content(row.values[column])})
            for row in (rows[:FEW] if processor.fixed_length else rows)
        ]

    @property
    def train(self) -> SourceSurvey:
        """What was seen of the training rows' source."""
        return self.surveys["train"]

    @property
    def objects(self) -> int:
        """How many there are."""
        return sum(len(seen.files or seen.source.objects) for seen in self.surveys.values())

    @property
    def bytes(self) -> int:
        """Of all objects, as stored."""
        return sum(seen.bytes for seen in self.surveys.values())

    @property
    def columns(self) -> set[str]:
        """All columns that were seen, used or not."""
        return set().union(*(seen.columns for seen in self.surveys.values()))
