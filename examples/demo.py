"""From a fresh clone to a tuned model on this machine: real mails and MiniLM, an S3 server of its own, and `finetune
run`.

    make demo            (or: python -m examples.demo)

Everything it makes lies in .demo/; what it fetches is kept for the next time. Credentials are made up for each run, and
the server listens on the loopback only.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from examples import data

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".demo"
MANIFEST = ROOT / "examples" / "spam-filter-local.yaml"
ENDPOINT = "http://127.0.0.1:9000"
SHARDS = 2
"""Of 1,000 mails each: enough for a good filter, and few enough for two cores."""


def main() -> int:
    """The exit code of `finetune run`."""
    began = time.monotonic()
    try:
        headline(1, "Real mails and a small real model")
        mails, model = data.mails(), data.minilm()
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir()
        keys = {"AWS_ACCESS_KEY_ID": f"demo{secrets.token_hex(8)}", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20)}
        headline(2, "An S3 server on this machine")
        with s3_server(keys) as endpoint:
            print(f"  {endpoint}, until this demo ends", flush=True)
            headline(
                3,
                f"Uploading {SHARDS * data.SHARD_MAILS:,} mails to learn from, {data.TEST_MAILS:,} to test, and the"
                " model",
            )
            client = s3_client(endpoint, keys)
            upload(client, mails, model)
            headline(4, "finetune run .demo/spam-filter.yaml")
            manifest = FOLDER / "spam-filter.yaml"
            manifest.write_text(MANIFEST.read_text().replace(ENDPOINT, endpoint))
            code = finetune_run(manifest, keys)
            if code:
                print("\nThe S3 server ends with this demo: `make demo` starts over.")
                return code
            headline(5, "Fetching the model and its report")
            target = download(client, FOLDER / "spam-filter")
    except data.Unavailable as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    say_what_next(target, time.monotonic() - began)
    return 0


def headline(number: int, text: str) -> None:
    """A step begins."""
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}[{number}/5] {text}{plain}", flush=True)


# ---------------------------------------------------------------- storage


@contextlib.contextmanager
def s3_server(keys: dict[str, str]) -> Iterator[str]:
    """Its endpoint: versitygw where that is installed, else moto's server, which comes from PyPI and keeps all in
    memory.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    versitygw = shutil.which("versitygw")
    environment = {**os.environ}
    if versitygw:
        (FOLDER / "s3").mkdir()
        (FOLDER / "s3-metadata").mkdir()
        where = ["--sidecar", str(FOLDER / "s3-metadata"), str(FOLDER / "s3")]
        command = [versitygw, "--port", f"127.0.0.1:{port}", "--quiet", "posix", *where]
        environment |= {"ROOT_ACCESS_KEY": keys["AWS_ACCESS_KEY_ID"], "ROOT_SECRET_KEY": keys["AWS_SECRET_ACCESS_KEY"]}
    else:
        command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (FOLDER / "s3.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            endpoint = f"http://127.0.0.1:{port}"
            wait_for(endpoint, server)
            yield endpoint
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(10)
            server.kill()


def wait_for(endpoint: str, server: subprocess.Popen[bytes]) -> None:
    """Until it answers."""
    until = time.monotonic() + 60
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(endpoint, timeout=2).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise data.Unavailable(f"the S3 server did not start; its log is {FOLDER / 's3.log'}")


def s3_client(endpoint: str, keys: dict[str, str]) -> Any:
    """A plain client."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
    )


def upload(client: Any, mails: Path, model: Path) -> None:
    """Buckets mail and models, as the manifest names them."""
    for bucket in ("mail", "models"):
        client.create_bucket(Bucket=bucket)
    for path in sorted(mails.glob("train-*.jsonl.zst"))[:SHARDS]:
        client.upload_file(str(path), "mail", f"train/{path.name}")
    client.upload_file(str(mails / "test.jsonl.zst"), "mail", "test.jsonl.zst")
    for path in sorted(model.iterdir()):
        client.upload_file(str(path), "models", f"minilm/{path.name}")


def download(client: Any, target: Path) -> Path:
    """The result without its checkpoints."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="models", Prefix="spam-filter/"):
        for item in page.get("Contents", ()):
            name = item["Key"].removeprefix("spam-filter/")
            if not name.startswith(("ckpt/", "generations/", "prepare/")):
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                client.download_file("models", item["Key"], str(path))
    print(f"  {target}", flush=True)
    return target


# ---------------------------------------------------------------- the job


def finetune_run(manifest: Path, keys: dict[str, str]) -> int:
    """Run it as a user would. Ctrl-C is for it alone: it stops in good order, and we after it."""
    command = [
        sys.executable,
        "-m",
        "finetune_cli",
        "run",
        str(manifest.relative_to(ROOT)),
        "--state-dir",
        str(FOLDER / "state"),
        "--no-hints",  # the server it would speak of ends with this demo, which gives its own
    ]
    before = signal.signal(signal.SIGINT, lambda *_: None)  # unlike SIG_IGN, it is not inherited
    try:
        with (FOLDER / "status.yaml").open("wb") as status:
            code = subprocess.run(command, cwd=ROOT, env={**os.environ, **keys}, stdout=status).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    print(f"\n  The status, as a cluster would show it: {FOLDER / 'status.yaml'}", flush=True)
    return code


def say_what_next(folder: Path, seconds: float) -> None:
    """The commands to try."""
    shown = folder.relative_to(ROOT) if Path.cwd() == ROOT else folder
    python = (
        Path(sys.executable).relative_to(ROOT)
        if Path(sys.executable).is_relative_to(ROOT) and Path.cwd() == ROOT
        else sys.executable
    )
    classify = (
        f"from transformers import pipeline; print(pipeline('text-classification', '{shown}')('You have won 1,000,000"
        " dollars! Click here'))"
    )
    finetune = Path(python).parent / "finetune"
    print(f"""
Done in {seconds // 60:.0f}m{seconds % 60:02.0f}s. The report: {folder}/report.html

Next:
  read the report
    xdg-open {shown}/report.html
  use the filter
    {python} -c "{classify}"
  see the manifest that made it
    less {shown.parent}/spam-filter.yaml
  let it answer the rows of a file
    {finetune} predict {shown} YOUR_MAILS.jsonl -o answers.jsonl
  start with your own data (jsonl, csv, parquet or plain text)
    {finetune} init YOUR_DATA.jsonl -o job.yaml && {finetune} run job.yaml
  the same on a cluster: README.md, "Install on a cluster", then
    kubectl apply -f examples/spam-filter.yaml""")


if __name__ == "__main__":
    sys.exit(main())
