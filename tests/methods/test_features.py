"""Method features in the prepare step: a pooling that does not fit is refused before a worker starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_api.exits import Reason
from finetune_trainer import prepare
from support.attempts import Bench
from support.models import mails, write_jsonl


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"pooling": "cls"}, "spec.method.features.pooling"), ({"pooling": "mean", "head": "mlp", "hidden": 8}, None)],
)
def test_a_decoder_has_no_token_that_stands_for_the_row_but_the_last(
    tmp_path: Path, llama: Path, settings: dict[str, Any], field: str | None
) -> None:
    spec = {
        "model": {"uri": llama.as_uri()},
        "data": {"train": {"uri": write_jsonl(tmp_path / "train.jsonl", mails(20, seed=1)).as_uri()}},
        "method": {"type": "features", "features": settings},
        "output": {"uri": (tmp_path / "out").as_uri()},
    }
    code = prepare.main(Bench(tmp_path, spec).config())
    said = json.loads((tmp_path / "termination").read_text()).get("problem") or {}
    assert said.get("field") == field, said
    assert (code == 0) == (field is None)
    if field:
        assert said["reason"] == Reason.INVALID_CONFIG
        assert "last or mean" in said["hint"]
