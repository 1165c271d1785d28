"""How large the model's files are that each node fetches: the workers' scratch volume is made for it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from finetune_api.run import RunConfig
from finetune_trainer.model.files import wanted
from finetune_trainer.model.hub import hub_info
from finetune_trainer.storage import location


def model_bytes(config: RunConfig, revision: str | None) -> int:
    """Bytes of the files that `fetch_model` brings with the weights, at an hf:// model's commit.

    Raises JobError as it does.
    """
    sizes = _sizes(config, revision)
    return sum(sizes[name] for name in wanted(sizes, config.model.uri, weights=True))


def _sizes(config: RunConfig, revision: str | None) -> dict[str, int]:
    uri = config.model.uri
    if uri.startswith("hf://"):
        info = hub_info(config, revision, sizes=True)
        return {s.rfilename: s.size or 0 for s in info.siblings or () if "/" not in s.rfilename}
    if uri.startswith("file://"):
        return {p.name: p.stat().st_size for p in Path(unquote(urlsplit(uri).path)).iterdir() if p.is_file()}
    return {info.key: info.size for info in location(uri, config.storage).list() if "/" not in info.key}
