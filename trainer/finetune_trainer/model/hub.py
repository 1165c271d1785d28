"""Models on the Hugging Face hub, at a pinned commit. The token comes from HF_TOKEN."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.run import RunConfig
from finetune_trainer.model.facts import FIELD
from finetune_trainer.model.files import wanted
from finetune_trainer.model.weights import Stored, weight_files

THREADS = 4


def fetch_from_hub(config: RunConfig, weights: bool, revision: str | None, granted: bool) -> Path:
    """The folder with the model's files, below the job's scratch."""
    info = hub_info(config, revision, granted=granted)
    names = wanted((s.rfilename for s in info.siblings or () if "/" not in s.rfilename), config.model.uri, weights)
    from huggingface_hub import snapshot_download
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # else the first progress bar starts a thread for good, and the launcher forks after this
    with hub_errors(config, granted):
        folder = snapshot_download(
            _repository(config),
            revision=info.sha,
            allow_patterns=names,
            endpoint=config.hub.endpoint,
            cache_dir=Path(config.scratch) / "hub",
            max_workers=THREADS,
        )
    return Path(folder)


def stored_on_hub(config: RunConfig, revision: str | None) -> dict[str, Stored]:
    """What the model's weight files hold, by their headers."""
    from huggingface_hub import HfApi

    info = hub_info(config, revision)
    api = HfApi(endpoint=config.hub.endpoint)
    found: dict[str, Stored] = {}
    for name in weight_files(s.rfilename for s in info.siblings or ()):
        with hub_errors(config, granted=False):
            said = api.parse_safetensors_file_metadata(_repository(config), name, revision=info.sha)
        found |= {tensor: Stored(t.dtype, tuple(t.shape)) for tensor, t in said.tensors.items()}
    return found


def _repository(config: RunConfig) -> str:
    return config.model.uri.removeprefix("hf://").strip("/")


def hub_info(config: RunConfig, revision: str | None, *, sizes: bool = False, granted: bool = False) -> Any:
    """The hub's description of the model.

    `sizes`: of its files, too; `granted`: an earlier process had access to it.
    """
    from huggingface_hub import HfApi

    with hub_errors(config, granted):
        return HfApi(endpoint=config.hub.endpoint).model_info(
            _repository(config), revision=revision, files_metadata=sizes
        )


@contextmanager
def hub_errors(config: RunConfig, granted: bool) -> Iterator[None]:
    """Map the hub client's errors to the contract's reasons.

    `granted`: the prepare step had access to this very commit.
    """
    from huggingface_hub import errors as hub

    try:
        yield
    except JobError:
        raise
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if granted and status in (401, 403):
            raise JobError(
                Reason.CREDENTIALS_EXPIRED,
                f"the hub no longer lets this token read {config.model.uri} (HTTP {status}), which it did before",
                field=FIELD,
                hint="Renew the token in the Secret of spec.hub.tokenSecret: each attempt reads it anew.",
            ) from None
        if isinstance(error, hub.GatedRepoError) or status in (401, 403):
            raise JobError(
                Reason.ACCESS_DENIED,
                f"the hub refuses access to {config.model.uri} (HTTP {status}): it is private, gated or does not exist",
                field=FIELD,
                hint="Name a Secret with HF_TOKEN in spec.hub.tokenSecret, and accept the model's terms on the hub.",
            ) from None
        if isinstance(error, hub.RevisionNotFoundError):
            raise JobError(
                Reason.MODEL_NOT_FOUND,
                f"{config.model.uri} has no revision {config.model.revision!r}",
                field="spec.model.revision",
            ) from None
        if (
            isinstance(error, hub.RepositoryNotFoundError | hub.EntryNotFoundError | hub.HFValidationError)
            or status == 404
        ):
            raise JobError(Reason.MODEL_NOT_FOUND, f"the hub has no model {config.model.uri}", field=FIELD) from None
        raise JobError(
            Reason.STORAGE_UNAVAILABLE,
            f"the hub cannot be reached for {config.model.uri}: {type(error).__name__}",
            field="spec.hub.endpoint",
        ) from error
