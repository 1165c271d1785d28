"""What a process of the trainer writes to its log: everything goes through one stream that keeps secrets in (I7).

The stream stands in for standard error itself, so that it also holds for what libraries log by handlers of their own,
for warnings, and for tracebacks that nobody caught, in the launcher and in the workers forked from it.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

from finetune_trainer.failures.redact import redact


class RedactedStream:
    """A text stream without secrets; all but `write` is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text without secrets; how many characters were given."""
        self._stream.write(redact(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def set_up() -> None:
    """Once a process, first of all: our own words from INFO on, others' warnings."""
    sys.stderr = RedactedStream(sys.stderr)  # type: ignore[assignment]
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("finetune_trainer").setLevel(logging.INFO)
