"""Which files of a hub data set belong to a split: the datasets library decides, so that a split here is what it is everywhere.

It knows the card's configurations, .huggingface.yaml, and the conventions for names of folders and files. Only its resolution
is used, at a pinned commit and for the hub's own files: no loading script, no local folder of the same name, no cache of an
earlier download can take their place. The import takes seconds, so only jobs with hf:// data pay for it, in the prepare step.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.run import HubAccess, RunConfig
from finetune_trainer.storage import blaming
from finetune_trainer.stream.formats import format_of
from finetune_trainer.stream.hub import HubStore, files_of, hub_errors
from finetune_trainer.stream.source import Listing, field_of


def list_hub(config: RunConfig, role: str, uri: str, revision: str | None, split: str) -> Listing:
    """The files of a split, at the commit that the revision means now. `split` may name the configuration, too:
    configuration/split. Raises JobError.
    """
    store = HubStore(uri, revision, config.hub)
    with blaming(field_of(role)):
        info = store.info()
        with hub_errors(store.repository, revision):
            splits = _resolved(store.repository, info.sha, config.hub, uri, role, split)
    wanted = split.rpartition("/")[2]
    if wanted not in splits:
        raise _no_split(uri, role, split, list(splits), [found.key for found in files_of(info)])
    chosen = {_path(url, store.repository, info.sha, uri, role) for url in splits[wanted]}
    pinned = HubStore(uri, info.sha, config.hub)
    objects = []
    for found in files_of(info):
        if found.key in chosen:
            kind = format_of(found.key, config.data.format)
            if kind is None:
                raise JobError(
                    Reason.INVALID_CONFIG, f"{pinned.uri(found.key)} is of split {split!r}, and its name says no format that can be read",
                    field=f"spec.data.{role}.split", hint="Choose a split of jsonl, csv or parquet files, or try revision refs/convert/parquet.",
                )  # fmt: skip
            objects.append((found, kind))
    return Listing(role, uri, pinned, tuple(objects), info.sha)


def _resolved(
    repository: str, commit: str, access: HubAccess, uri: str, role: str, split: str
) -> dict[str, Sequence[str]]:
    """split -> URLs of its files, of the configuration that `split` names, else the default one."""
    import datasets
    from datasets.load import HubDatasetModuleFactory

    datasets.disable_progress_bars()
    with _endpoint(datasets.config, access.endpoint):
        options = datasets.DownloadConfig()  # takes the endpoint as it is now
        try:
            module = HubDatasetModuleFactory(repository, commit_hash=commit, download_config=options).get_module()
            parameters = module.builder_configs_parameters
            by_name = {found.name: found for found in parameters.builder_configs or ()}
            name = split.rpartition("/")[0] or parameters.default_config_name
            if name is None and len(by_name) == 1:
                name = next(iter(by_name))
            if name not in by_name:
                raise _no_configuration(uri, role, split, list(by_name))
            found = by_name[name].data_files
            if isinstance(found, datasets.data_files.DataFilesPatternsDict):
                found = found.resolve(module.builder_kwargs["base_path"], options)
        except (FileNotFoundError, datasets.exceptions.DatasetsError):
            return {}  # nothing that the library takes for data
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise JobError(
                Reason.INVALID_DATA, f"the card of {uri} cannot be understood: {str(error)[:200] or type(error).__name__}",
                hint="Mend the configs section of its README.md, or choose a revision without the fault.",
            ) from None  # fmt: skip
    return {str(name): list(urls) for name, urls in (found or {}).items()}


@contextmanager
def _endpoint(settings: Any, endpoint: str | None) -> Iterator[None]:
    """The library takes its hub from a setting of the process."""
    before = settings.HF_ENDPOINT
    settings.HF_ENDPOINT = endpoint or before
    try:
        yield
    finally:
        settings.HF_ENDPOINT = before


def _path(url: str, repository: str, commit: str, uri: str, role: str) -> str:
    """The file's name in the repository. Raises JobError for a file that lies elsewhere: its commit would not be pinned."""
    start = f"hf://datasets/{repository}@{commit}/"
    if not url.startswith(start):
        raise JobError(
            Reason.INVALID_DATA, f"the card of {uri} names a file outside the data set: {url[:200]}", field=field_of(role),
            hint="Copy that file to your own storage, and name it there.",
        )  # fmt: skip
    return url.removeprefix(start)


def _no_configuration(uri: str, role: str, split: str, names: list[str]) -> JobError:
    asked, _, wanted = split.rpartition("/")
    near = (difflib.get_close_matches(asked, names, 1) or names)[0]
    why = f"no configuration {asked!r}" if asked else f"several configurations, and split {split!r} does not say which"
    return JobError(
        Reason.DATA_NOT_FOUND, f"{uri} has {why}; there are {', '.join(names[:10])}", field=f"spec.data.{role}.split",
        hint=f"Write it as configuration/split, as {near}/{wanted}.",
    )  # fmt: skip


def _no_split(uri: str, role: str, split: str, splits: list[str], names: list[str]) -> JobError:
    if splits:
        seen = f"its splits are {', '.join(splits[:10])}"
    else:
        seen = f"its files are {', '.join(names[:5])}{', …' if len(names) > 5 else ''}" if names else "it is empty"
    return JobError(
        Reason.DATA_NOT_FOUND, f"{uri} has no files for split {split!r}; {seen}", field=f"spec.data.{role}.split",
        hint="Name a split that the data set has; for sets with a loading script try revision refs/convert/parquet.",
    )  # fmt: skip
