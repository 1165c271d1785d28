"""Rows in the same order in every run of the tests: else what a tiny model learns hangs on where its files lie and when
they were written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from finetune_trainer.prepare.layout import layout


@contextmanager
def same_order() -> Iterator[None]:
    """For the prepare step: the order of the rows hangs on the seed alone."""

    def digest(*_: Any, **__: Any) -> str:
        return "0" * 64

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "order_digest", digest)
        yield
