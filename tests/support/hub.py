"""A local stand-in for the Hugging Face hub: the paths that huggingface_hub asks for, over real HTTP.

Repositories are files in memory with commits and branches; private ones want a token, gated ones refuse even that.
Every request is recorded, so that a test can say what was (not) asked for.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest


@dataclass
class Repository:
    """Branches and tags point at commits; a commit is a set of files."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    card: dict[str, Any] | None = None
    token: str | None = None
    gated: bool = False


class Hub(ThreadingHTTPServer):
    """The server; `endpoint` is what HubAccess and HF_ENDPOINT want."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.fail_next = 0  # so many requests are answered with 503
        self.failing: dict[
            str, int
        ] = {}  # files by the end of their path, and what is answered to every request for them

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(
        self,
        kind: str,
        name: str,
        files: Mapping[str, bytes] | Path,
        *,
        revision: str = "main",
        card: dict[str, Any] | None = None,
        token: str | None = None,
        gated: bool = False,
    ) -> str:
        """Commit files to a model or data set ("models", "datasets"); returns the commit."""
        if isinstance(files, Path):
            files = {
                path.relative_to(files).as_posix(): path.read_bytes() for path in files.rglob("*") if path.is_file()
            }
        if card is not None:
            files = {**files, "README.md": f"---\n{json.dumps(card, indent=1)}\n---\n# {name}\n".encode()}
        repository = self.repositories.setdefault((kind, name), Repository())
        content = {path: hashlib.sha256(data).hexdigest() for path, data in sorted(files.items())}
        commit = hashlib.sha1(json.dumps([content, revision, len(repository.commits)]).encode()).hexdigest()
        repository.commits[commit] = dict(files)
        repository.names[revision] = commit
        repository.card, repository.token, repository.gated = card or repository.card, token, gated
        return commit


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.server.requests.append((self.command, unquote(url.path), dict(self.headers.items())))
        try:
            if self.server.fail_next > 0:
                self.server.fail_next -= 1
                raise _Refused(503, "", "try again")
            for ending, status in self.server.failing.items():
                if url.path.endswith(ending):
                    raise _Refused(status, "", "not now")
            self._route(unquote(url.path), parse_qs(url.query))
        except _Refused as refused:
            body = json.dumps({"error": str(refused)}).encode()
            self._answer(
                refused.status,
                body,
                {"X-Error-Code": refused.code, "X-Error-Message": str(refused), "Content-Type": "application/json"},
            )

    do_HEAD = do_GET

    def _route(self, path: str, query: dict[str, list[str]]) -> None:
        if found := re.match(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/([^/]+(?:/.+)?))?\Z", path):
            kind, name, revision = found.groups()
            self._json(self._info(kind, name, revision or "main"))
        elif found := re.match(r"/api/(models|datasets)/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?\Z", path):
            kind, name, revision, below = found.groups()
            _, files = self._commit(kind, name, revision)
            self._json(_tree(files, below or "", query.get("recursive") == ["true"]))
        elif found := re.match(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)\Z", path):
            data_set, name, revision, file = found.groups()
            self._file("datasets" if data_set else "models", name, revision, file)
        else:
            raise _Refused(404, "", f"no such path: {path}")

    def _commit(self, kind: str, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        repository = self.server.repositories.get((kind, name))
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if repository is None or (repository.token and given != repository.token):
            raise _Refused(404, "RepoNotFound", "Repository not found")
        if repository.gated:
            raise _Refused(403, "GatedRepo", "Access to this repository is restricted")
        commit = repository.names.get(revision, revision)
        if commit not in repository.commits:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, repository.commits[commit]

    def _info(self, kind: str, name: str, revision: str) -> dict[str, Any]:
        commit, files = self._commit(kind, name, revision)
        card = self.server.repositories[kind, name].card
        siblings = [
            {"rfilename": file, "size": len(data), "blobId": _blob(data)} for file, data in sorted(files.items())
        ]
        return {
            "_id": "0" * 24,
            "id": name,
            "sha": commit,
            "private": False,
            "gated": False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": siblings,
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "cardData": card or {},
        }

    def _file(self, kind: str, name: str, revision: str, file: str) -> None:
        commit, files = self._commit(kind, name, revision)
        if file not in files:
            raise _Refused(404, "EntryNotFound", f"{file} does not exist")
        data = files[file]
        headers = {"ETag": f'"{_blob(data)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        wanted = re.match(r"bytes=(\d+)-(\d*)\Z", self.headers.get("Range", ""))
        if not wanted:
            self._answer(200, data, headers)
            return
        start, end = int(wanted[1]), int(wanted[2] or len(data) - 1)
        if start >= len(data):
            self._answer(416, b"", headers | {"Content-Range": f"bytes */{len(data)}"})
            return
        end = min(end, len(data) - 1)
        self._answer(206, data[start : end + 1], headers | {"Content-Range": f"bytes {start}-{end}/{len(data)}"})

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def _tree(files: Mapping[str, bytes], below: str, recursive: bool) -> list[dict[str, Any]]:
    """What the hub lists below a folder: files and folders, only the next level unless recursive."""
    prefix = f"{below}/" if below else ""
    inside = {file: data for file, data in sorted(files.items()) if file.startswith(prefix)}
    if below and not inside:
        raise _Refused(404, "EntryNotFound", f"{below} does not exist")
    folders = {file[: n + len(prefix)] for file in inside for n, char in enumerate(file[len(prefix) :]) if char == "/"}
    found = [{"type": "directory", "path": folder, "size": 0, "oid": "0" * 40} for folder in sorted(folders)]
    found += [{"type": "file", "path": file, "size": len(data), "oid": _blob(data)} for file, data in inside.items()]
    return [entry for entry in found if recursive or "/" not in str(entry["path"])[len(prefix) :]]


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A running hub."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, and no token of the machine's own."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    with serve_hub() as server:
        yield server
