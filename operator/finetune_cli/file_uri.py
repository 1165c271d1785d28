"""Paths and file:// URIs: percent-encoded where a URI, or our patterns, would read a character as something else."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from urllib.parse import quote, unquote

from finetune_cli.terminal import Stop


def file_uri(path: Path) -> str:
    """The file:// URI of a path; letters of any script stay readable.

    Raises Stop where patterns would read the path as one.
    """
    absolute = str(path.absolute())
    if wild := next((c for c in "*?" if c in absolute), None):
        raise Stop(f"{path}: {wild} stands for other characters in a data URI", hint="Rename the file or its folder.")
    return "file://" + "".join(quote(c) if _special(c) else c for c in absolute)


def local_path(uri: str) -> Path:
    """The folder or file of a file:// URI."""
    return Path(unquote(uri.removeprefix("file://")))


def _special(character: str) -> bool:
    return character in "%#" or unicodedata.category(character)[0] in "ZC"
