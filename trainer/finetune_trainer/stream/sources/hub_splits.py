"""Which files of a hub data set belong to a split: the datasets library decides, so that a split here is what it is
everywhere.

It knows the card's configurations, .huggingface.yaml, and the conventions for names of folders and files. It is shown a
skeleton of the pinned commit: empty files by their names, and the real card. On the hub itself it would take a card
that cannot be read just now for none, and a folder that cannot be listed for empty: other rows, without a word (I8).
The import takes seconds, so only jobs with hf:// data pay for it, in the prepare step.
"""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from yaml import YAMLError

from finetune_api.exits import JobError, Reason
from finetune_api.formats import format_of
from finetune_api.run import RunConfig
from finetune_api.tasks import TASKS
from finetune_trainer.storage import blaming
from finetune_trainer.stream.sources.folders import as_object, is_folder, without_files
from finetune_trainer.stream.sources.hub_store import HubStore, files_of
from finetune_trainer.stream.sources.listing import Listing, refuse_notes

CARDS = ("README.md", ".huggingface.yaml")
OPENED = (".py", ".zip", "dataset_infos.json")


def list_hub(config: RunConfig, role: str, place: str, uri: str, revision: str | None, split: str) -> Listing:
    """The files of a split, at the commit that the revision means now. `split` may name the configuration, too:
    configuration/split; `place`: the field of the manifest that describes the source. Raises JobError.
    """
    store = HubStore(uri, revision, config.hub)
    with blaming(f"{place}.uri"):
        info = store.info()
        pinned = HubStore(uri, info.sha, config.hub)
        files = files_of(info)
        splits, class_names = _resolved(pinned, [found.key for found in files], uri, place, split)
    wanted = split.rpartition("/")[2]
    if wanted not in splits:
        raise _no_split(uri, place, split, list(splits), [found.key for found in files])
    objects = []
    names = set(splits[wanted])
    mine = [found for found in files if found.key in names]
    if TASKS[config.task].reads_files:
        if is_folder([found.key for found in mine], config.data.format):
            return Listing(role, f"{place}.uri", uri, pinned, (as_object(mine, ""),), info.sha, files=tuple(mine))
        mine = without_files(mine, config.data.format)
    for found in mine:
        kind = format_of(found.key, config.data.format)
        if kind is None:
            raise JobError(
                Reason.INVALID_CONFIG,
                f"{pinned.uri(found.key)} is of split {split!r}, and its name says no format that can be read",
                field=f"{place}.split",
                hint="Choose a split of jsonl, csv, parquet or txt files, or try revision refs/convert/parquet.",
            )
        objects.append((found, kind))
    refuse_notes(objects, pinned, f"{place}.split")
    return Listing(role, f"{place}.uri", uri, pinned, tuple(objects), info.sha, class_names=class_names)


def _resolved(
    store: HubStore, names: Sequence[str], uri: str, place: str, split: str
) -> tuple[dict[str, list[str]], dict[str, tuple[str, ...]]]:
    """split -> names of its files, of the configuration that `split` names, else the default one; and column -> names
    of its classes.
    """
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(prefix="finetune-hub-") as scratch:
        folder = Path(scratch, "repository")
        cards = _skeleton(store, names, folder)
        try:
            _refuse_foreign(cards, uri)
            known = datasets.get_dataset_config_names(str(folder))
            config = split.rpartition("/")[0] or datasets.get_dataset_default_config_name(str(folder))
            if config not in known and (split.rpartition("/")[0] or len(known) > 1):
                raise _no_configuration(uri, place, split, known)
            builder = datasets.load_dataset_builder(str(folder), config, cache_dir=f"{scratch}/cache")
        except (FileNotFoundError, datasets.exceptions.DatasetsError):
            return {}, {}  # nothing that the library takes for data
        except (ValueError, TypeError, KeyError, AttributeError, YAMLError) as error:
            raise JobError(
                Reason.INVALID_DATA,
                f"the card of {uri} cannot be understood:"
                f" {str(error).replace(str(folder), uri)[:200] or type(error).__name__}",
                hint="Mend the configs section of its README.md, or choose a revision without the fault.",
            ) from None
        found = builder.config.data_files or {}
        features = builder.info.features or {}
        inner = {name: getattr(kind, "feature", kind) for name, kind in features.items()}  # of a list, what it holds
        classes = {
            name: tuple(kind.names)
            for name, kind in inner.items()
            if isinstance(kind, datasets.ClassLabel) and kind.names
        }
        return {str(name): [_name(path, folder, uri) for path in paths] for name, paths in found.items()}, classes


def _skeleton(store: HubStore, names: Sequence[str], folder: Path) -> list[Path]:
    """The repository's files without content, but for its cards; returns these.

    What the library would open is left out.
    """
    folder.mkdir()
    cards = []
    for name in names:
        if name.startswith("/") or ".." in name.split("/") or name.endswith(OPENED):
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if name in CARDS:
            path.write_bytes(store.get(name))
            cards.append(path)
    return cards


def _refuse_foreign(cards: Sequence[Path], uri: str) -> None:
    """A card may name files anywhere on the net: their commit would not be pinned, and the library would look there."""
    from huggingface_hub import DatasetCard

    for card in cards:
        text = card.read_text(encoding="utf-8")
        data: Any = DatasetCard(text).data if card.suffix == ".md" else None
        facts = yaml.safe_load(text) if data is None else data.to_dict()
        for value in _texts((facts or {}).get("configs")):
            if "://" in value or "::" in value:
                raise _outside(uri, value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _name(path: str, folder: Path, uri: str) -> str:
    if not Path(path).is_relative_to(folder):
        raise _outside(uri, path)
    return Path(path).relative_to(folder).as_posix()


def _outside(uri: str, what: str) -> JobError:
    return JobError(
        Reason.INVALID_DATA,
        f"the card of {uri} names a file outside the data set: {what[:200]}",
        hint="Copy that file to your own storage, and name it there.",
    )


def _no_configuration(uri: str, place: str, split: str, names: list[str]) -> JobError:
    asked, _, wanted = split.rpartition("/")
    near = (difflib.get_close_matches(asked, names, 1) or names)[0]
    why = f"no configuration {asked!r}" if asked else f"several configurations, and split {split!r} does not say which"
    return JobError(
        Reason.DATA_NOT_FOUND,
        f"{uri} has {why}; there are {', '.join(names[:10])}",
        field=f"{place}.split",
        hint=f"Write it as configuration/split, as {near}/{wanted}.",
    )


def _no_split(uri: str, place: str, split: str, splits: list[str], names: list[str]) -> JobError:
    if splits:
        seen = f"its splits are {', '.join(splits[:10])}"
    else:
        seen = f"its files are {', '.join(names[:5])}{', …' if len(names) > 5 else ''}" if names else "it is empty"
    return JobError(
        Reason.DATA_NOT_FOUND,
        f"{uri} has no files for split {split!r}; {seen}",
        field=f"{place}.split",
        hint="Name a split that the data set has; for sets with a loading script try revision refs/convert/parquet.",
    )
