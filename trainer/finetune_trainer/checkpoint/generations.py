"""Who may write, and which checkpoints count: generations, claimed once each by a conditional write (I5).

Rank 0 of each new process group claims the next `generations/<n>.json` and records where it resumed. Readers follow the
chain from the newest generation: what an older one wrote past the newer one's resume step does not count. A writer that
finds a newer generation is fenced.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_trainer.checkpoint.manifest import KEY
from finetune_trainer.storage import Location

log = logging.getLogger(__name__)

_KEY = re.compile(r"^generations/(\d+)\.json$")


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """One generation.

    `resume`: the (generation, step) it went on from; None from the start, or from another job's checkpoint.
    """

    number: int
    attempt: int
    resume: tuple[int, int] | None
    writer: str

    def to_json(self, time: str, source: str | None) -> bytes:
        """Text of the record; `source`, the URI of another job's checkpoint, is for people."""
        resume = {"generation": self.resume[0], "step": self.resume[1]} if self.resume else None
        value = {
            "generation": self.number,
            "attempt": self.attempt,
            "resumeFrom": resume,
            "source": source,
            "writer": self.writer,
            "time": time,
        }
        return json.dumps(value, indent=1).encode()


def numbers(out: Location) -> list[int]:
    """Numbers of all generations claimed so far, rising."""
    return sorted(int(m.group(1)) for info in out.list("generations/") if (m := _KEY.match(info.key)))


def read(out: Location, number: int) -> GenerationRecord | None:
    """A generation's record; None when it is missing or cannot be read."""
    text = out.find(f"generations/{number}.json")
    try:
        value: dict[str, Any] = json.loads(text or b"")
        resume = value["resumeFrom"]
        record = GenerationRecord(
            number,
            int(value["attempt"]),
            (int(resume["generation"]), int(resume["step"])) if resume else None,
            value["writer"],
        )
    except (ValueError, TypeError, KeyError):
        return None
    return record if record.resume is None or record.resume[0] < number else None


def put(out: Location, record: GenerationRecord, time: str, source: str | None) -> bool:
    """Claim the generation. Returns whether this writer has it."""
    try:
        out.put(f"generations/{record.number}.json", record.to_json(time, source), if_none_match=True)
    except FileExistsError:
        found = read(out, record.number)
        return found is not None and found.writer == record.writer  # our own write, whose answer was lost
    return True


def check_newest(out: Location, mine: int, writer: str) -> None:
    """Raise FENCED if a newer generation than mine exists, or mine is no longer there: another job has taken the output
    over.
    """
    newest = max(numbers(out), default=0)
    if newest > mine:
        raise fenced(mine, newest)
    found = read(out, mine)
    if found is None or found.writer != writer:
        raise JobError(
            Reason.FENCED,
            f"{out.uri(f'generations/{mine}.json')} is no longer this process's: another job has taken the output over",
        )


def fenced(mine: int, newest: int) -> JobError:
    """The error of a writer that was overtaken."""
    return JobError(
        Reason.FENCED, f"generation {newest} of this job has taken over its output; this process is generation {mine}"
    )


def chain(out: Location, known: list[int]) -> Iterator[tuple[int, int | None]]:
    """(generation, last step of it that counts or None for all), from the newest generation back."""
    limit: int | None = None
    number = max(known, default=0)
    while number:
        yield number, limit
        record = read(out, number)
        if record is None:
            log.warning(
                "%s cannot be read; going on with the generation before it", out.uri(f"generations/{number}.json")
            )
            number, limit = max((n for n in known if n < number), default=0), None
        elif record.resume is None:
            return
        else:
            number, limit = record.resume


def candidates(out: Location) -> Iterator[tuple[int, int]]:
    """(generation, step) of the checkpoints that count, newest first; none is verified yet."""
    steps: dict[int, list[int]] = {}
    for info in out.list("ckpt/"):
        if match := KEY.match(info.key):
            steps.setdefault(int(match.group(1)), []).append(int(match.group(2)))
    for generation, limit in chain(out, numbers(out)):
        yield from (
            (generation, s) for s in sorted(steps.get(generation, ()), reverse=True) if limit is None or s <= limit
        )
