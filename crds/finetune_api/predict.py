"""PredictConfig: what the trainer's predict step needs to know, and what it says on its standard output."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_api.base import Model
from finetune_api.report import Problem
from finetune_api.run import HubAccess, StorageAccess
from finetune_api.status import Finding


class PredictConfig(Model):
    """A job's output, rows, and where their answers go. It never holds a secret, as a RunConfig does not."""

    version: Literal[1] = 1
    output: str = Field(description="URI of a job's output: file:// or s3://.")
    rows: str = Field(description="URI of the objects that hold the rows, as of spec.data.train.")
    format: str = Field("auto", description="As spec.data.format.")
    columns: dict[str, str] = Field({}, description="Role -> column, where the rows name it otherwise than in the job.")
    answer: str = Field("prediction", description="The name under which the answer stands beside a row's own columns.")
    max_bad_rows: int = Field(0, ge=0)
    target: str = Field(description="Path of the file for the answers, one JSON object a line.")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(1, ge=1)
    storage: StorageAccess = StorageAccess()
    hub: HubAccess = HubAccess()
    scratch: str = Field(description="Folder for what is fetched.")


class PredictReport(Model):
    """One line of the step's standard output: how far it is, and last of all how it ended."""

    stage: str = Field("", description="What it is at, for people.")
    rows: int = Field(0, description="Rows answered.")
    total: int = Field(0, description="Rows to be answered.")
    task: str = ""
    findings: tuple[Finding, ...] = Field((), description="What the rows' owner should know.")
    problem: Problem | None = Field(None, description="Why it failed.")
