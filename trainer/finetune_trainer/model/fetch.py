"""Bring a model's files to this node: safetensors, configuration, tokenizer and card (for its licence); never a pickle,
never code.

A file:// folder is used in place. s3:// and hf:// models are written to scratch once per node (the launcher does it
before it starts the workers), in parallel ranges, and a part that was left by an earlier try is recognised by size and
tag.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from finetune_api.exits import JobError, Reason
from finetune_api.run import RunConfig
from finetune_trainer.model.facts import FIELD
from finetune_trainer.model.weights import Stored, header, headers, weight_files
from finetune_trainer.storage import Location, ObjectInfo, location

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "vocab.bpe",
    "bpe.codes",
    "*.model",
    "*.tiktoken",
    "tekken.json",
    "chat_template.jinja",
    "chat_template.json",
)
SMALL = (*TOKENIZER, "config.json", "generation_config.json", "README.md")
INDEX = "model.safetensors.index.json"
UNSAFE = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack", "*.gguf", "*.onnx")
PART = 32 * 1024 * 1024
THREADS = 4


def fetch_model(config: RunConfig, *, weights: bool = True, revision: str | None = None) -> Path:
    """The folder with the model's files. `weights=False` brings the small ones only, but still checks that weights
    exist.

    `revision` is the commit that the prepare step resolved (hf:// only). Raises JobError: ModelNotFound, UnsafeModel,
    AccessDenied, StorageUnavailable.
    """
    uri = config.model.uri
    if uri.startswith("hf://"):
        return _from_hub(config, weights, revision or config.model.revision, granted=revision is not None)
    if uri.startswith("file://"):
        folder = Path(unquote(urlsplit(uri).path))
        if not folder.is_dir():
            raise JobError(Reason.MODEL_NOT_FOUND, f"{folder} is not a folder", field=FIELD)
        wanted((p.name for p in folder.iterdir() if p.is_file()), str(folder), weights)
        _check_index(folder)
        return folder
    source = location(uri, config.storage)
    listed = {info.key: info for info in source.list() if "/" not in info.key}
    names = wanted(listed, uri, weights)
    folder = _scratch(config, uri)
    _download(source, [listed[name] for name in names], folder)
    _check_index(folder)
    return folder


def stored_weights(config: RunConfig, *, revision: str | None = None) -> dict[str, Stored]:
    """What the model's weight files hold, by their headers: nothing else of them is brought."""
    uri = config.model.uri
    if uri.startswith("file://"):
        return headers(Path(unquote(urlsplit(uri).path)))
    found: dict[str, Stored] = {}
    if uri.startswith("hf://"):
        from huggingface_hub import HfApi

        info = hub_info(config, revision or config.model.revision)
        api = HfApi(endpoint=config.hub.endpoint)
        for name in weight_files(s.rfilename for s in info.siblings or ()):
            with _hub_errors(config, granted=False):
                said = api.parse_safetensors_file_metadata(_repository(config), name, revision=info.sha)
            found |= {tensor: Stored(t.dtype, tuple(t.shape)) for tensor, t in said.tensors.items()}
        return found
    source = location(uri, config.storage)
    for name in weight_files(info.key for info in source.list()):
        found |= header(lambda start, end, name=name: source.get(name, start=start, end=end), name)  # type: ignore[misc]
    return found


def resolve_revision(config: RunConfig) -> str | None:
    """The commit that an hf:// model's revision means now; None for other URIs."""
    if not config.model.uri.startswith("hf://"):
        return None
    return hub_info(config, config.model.revision).sha


def _scratch(config: RunConfig, key: str) -> Path:
    folder = Path(config.scratch) / "models" / hashlib.sha256(key.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def wanted(names: Iterable[str], where: str, weights: bool) -> list[str]:
    """The files to bring, sorted. Raises JobError when the folder is no model, or one in an unsafe format only."""
    names = set(names)
    if "config.json" not in names:
        raise JobError(Reason.MODEL_NOT_FOUND, f"no config.json at {where}", field=FIELD)
    tensors = set(weight_files(names))
    if not tensors:
        unsafe = sorted(n for n in names if any(fnmatch.fnmatch(n, pattern) for pattern in UNSAFE))
        if unsafe:
            raise JobError(
                Reason.UNSAFE_MODEL, f"{where} has its weights as {unsafe[0]} only, not as safetensors", field=FIELD
            )
        raise JobError(Reason.MODEL_NOT_FOUND, f"no model.safetensors at {where}", field=FIELD)
    small = {n for n in names if any(fnmatch.fnmatch(n, pattern) for pattern in SMALL)}
    if not weights:
        return sorted(small)
    return sorted(small | tensors | ({INDEX} & names if "model.safetensors" not in tensors else set()))


def _check_index(folder: Path) -> None:
    """Every shard that the index names is a plain file name (it is joined to the folder by transformers)."""
    index = folder / INDEX
    if index.exists():
        try:
            shards = set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise JobError(Reason.MODEL_NOT_FOUND, f"{INDEX} is not an index of safetensors", field=FIELD) from None
        for shard in shards:
            if not re.fullmatch(r"[\w.-]+\.safetensors", shard):
                raise JobError(
                    Reason.UNSAFE_MODEL,
                    f"{INDEX} names {shard!r}, which is not a safetensors file of the same folder",
                    field=FIELD,
                )


# ---------------------------------------------------------------- object storage


@dataclass(frozen=True, slots=True)
class _Part:
    info: ObjectInfo
    start: int
    end: int


def _parts(infos: Iterable[ObjectInfo]) -> Iterator[_Part]:
    for info in infos:
        for start in range(0, info.size, PART):
            yield _Part(info, start, min(start + PART, info.size))


def _download(source: Location, infos: list[ObjectInfo], folder: Path) -> None:
    """Write the objects, each under its name only once it is whole; what is there with the same tag stays."""
    record = folder / ".fetched.json"
    have: dict[str, str] = json.loads(record.read_text()) if record.exists() else {}
    needed = [i for i in infos if have.get(i.key) != i.etag or not (folder / i.key).exists()]
    for info in needed:
        with open(folder / f"{info.key}.part", "wb") as file:
            file.truncate(info.size)

    def bring(part: _Part) -> None:
        data = source.get(part.info.key, start=part.start, end=part.end, if_match=part.info.etag)
        with open(folder / f"{part.info.key}.part", "r+b") as file:
            os.pwrite(file.fileno(), data, part.start)

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(bring, _parts(needed)):
            pass
    for info in needed:
        os.replace(folder / f"{info.key}.part", folder / info.key)
    if needed:
        record.write_text(json.dumps(have | {i.key: i.etag for i in infos}))


# ---------------------------------------------------------------- the hub


def _from_hub(config: RunConfig, weights: bool, revision: str | None, granted: bool) -> Path:
    info = hub_info(config, revision, granted=granted)
    names = wanted((s.rfilename for s in info.siblings or () if "/" not in s.rfilename), config.model.uri, weights)
    from huggingface_hub import snapshot_download
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # else the first progress bar starts a thread for good, and the launcher forks after this
    with _hub_errors(config, granted):
        folder = snapshot_download(
            _repository(config),
            revision=info.sha,
            allow_patterns=names,
            endpoint=config.hub.endpoint,
            cache_dir=Path(config.scratch) / "hub",
            max_workers=THREADS,
        )
    _check_index(Path(folder))
    return Path(folder)


def _repository(config: RunConfig) -> str:
    return config.model.uri.removeprefix("hf://").strip("/")


def hub_info(config: RunConfig, revision: str | None, *, sizes: bool = False, granted: bool = False) -> Any:
    """The hub's description of the model.

    `sizes`: of its files, too; `granted`: an earlier process had access to it.
    """
    from huggingface_hub import HfApi

    with _hub_errors(config, granted):
        return HfApi(endpoint=config.hub.endpoint).model_info(
            _repository(config), revision=revision, files_metadata=sizes
        )


class _hub_errors:
    """Map the hub client's errors to the contract's reasons.

    `granted`: the prepare step had access to this very commit.
    """

    def __init__(self, config: RunConfig, granted: bool) -> None:
        self._uri, self._revision, self._granted = config.model.uri, config.model.revision, granted

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, JobError) or not isinstance(error, Exception):
            return
        from huggingface_hub import errors as hub

        status = getattr(getattr(error, "response", None), "status_code", None)
        if self._granted and status in (401, 403):
            raise JobError(
                Reason.CREDENTIALS_EXPIRED,
                f"the hub no longer lets this token read {self._uri} (HTTP {status}), which it did before",
                field=FIELD,
                hint="Renew the token in the Secret of spec.hub.tokenSecret: each attempt reads it anew.",
            ) from None
        if isinstance(error, hub.GatedRepoError) or status in (401, 403):
            raise JobError(
                Reason.ACCESS_DENIED,
                f"the hub refuses access to {self._uri} (HTTP {status}): it is private, gated or does not exist",
                field=FIELD,
                hint="Name a Secret with HF_TOKEN in spec.hub.tokenSecret, and accept the model's terms on the hub.",
            ) from None
        if isinstance(error, hub.RevisionNotFoundError):
            raise JobError(
                Reason.MODEL_NOT_FOUND, f"{self._uri} has no revision {self._revision!r}", field="spec.model.revision"
            ) from None
        if (
            isinstance(error, hub.RepositoryNotFoundError | hub.EntryNotFoundError | hub.HFValidationError)
            or status == 404
        ):
            raise JobError(Reason.MODEL_NOT_FOUND, f"the hub has no model {self._uri}", field=FIELD) from None
        raise JobError(
            Reason.STORAGE_UNAVAILABLE,
            f"the hub cannot be reached for {self._uri}: {type(error).__name__}",
            field="spec.hub.endpoint",
        ) from error
