"""From a trainer's report to the job's status: the time it takes, with many jobs that report at once.

Each of N jobs posts over HTTPS every second for a while, with a step that rises; a step's lag is the time from its
post's answer to the first status write that holds this step or a later one. One JSON line; lags in seconds. The
operator runs as it is installed, with its own interval between writes of progress, against a fake API server in this
process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import ssl
import tempfile
import time
from pathlib import Path

import aiohttp
from operator_process import operator, rss, until

from fakecluster.api import FakeApi
from fakecluster.driver import job
from fakecluster.node import COMPONENT, Ending, Node, success
from fakecluster.objects import Object
from finetune_api.report import Report, Stage
from finetune_api.status import Point, Progress

EVERY_SECONDS = 1.0


async def measure(count: int, seconds: float) -> dict[str, object]:
    async with FakeApi().running() as api:
        with tempfile.TemporaryDirectory() as folder:
            async with operator(api, Path(folder)) as (process, ports):
                node = Node(api.objects)

                def end(pod: Object) -> Ending | None:
                    return None if pod["metadata"]["labels"][COMPONENT] == "worker" else success(pod)

                node.end = end
                for i in range(count):
                    api.objects.create(
                        "finetunejobs",
                        "team",
                        job(f"job-{i}", "team", output={"uri": f"s3://out/{i}"}, workers={"replicas": 1}),
                    )

                def workers() -> list[Object]:
                    node.tick()
                    return [
                        p
                        for p in api.objects.list("pods", "team", f"{COMPONENT}=worker")
                        if p["status"].get("phase") == "Running"
                    ]

                await until(lambda: len(workers()) == count)
                await asyncio.sleep(2)
                posted: dict[tuple[str, int], float] = {}
                seen: dict[tuple[str, int], float] = {}

                def watch() -> None:
                    _, plural, _, obj = api.objects.history[-1]
                    step = (
                        ((obj.get("status") or {}).get("progress") or {}).get("step")
                        if plural == "finetunejobs"
                        else None
                    )
                    if step is not None:
                        seen.setdefault((obj["metadata"]["name"], step), time.perf_counter())

                api.objects.changed.append(watch)
                context = ssl.create_default_context(cafile=f"{folder}/ca.crt")
                codes: dict[int, int] = {}
                async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=0)) as session:

                    async def trainer(pod: Object, start: float) -> None:
                        meta = pod["metadata"]
                        uid, name = (
                            meta["labels"]["finetune-operator.io/job-uid"],
                            meta["labels"]["finetune-operator.io/job"],
                        )
                        extra = {
                            "authentication.kubernetes.io/pod-name": [meta["name"]],
                            "authentication.kubernetes.io/pod-uid": [meta["uid"]],
                        }
                        api.tokens[uid] = (uid, {"username": "system:serviceaccount:team:default", "extra": extra})
                        url = f"https://localhost:{ports[2]}/v1/namespaces/team/jobs/{name}/report"
                        await asyncio.sleep(start)
                        history: list[Point] = []
                        for step in range(1, int(seconds / EVERY_SECONDS) + 1):
                            history = [*history, Point(step=step, loss=round(2 / step, 4))][-128:]
                            progress = Progress(step=step, total_steps=1000, percent=step / 10, loss=round(2 / step, 4))
                            report = Report(
                                job_id=uid,
                                attempt=1,
                                sequence=step,
                                time=time.time(),
                                stage=Stage.TRAINING,
                                progress=progress,
                                history=tuple(history),
                            )
                            async with session.post(
                                url, json=report.to_json(), headers={"Authorization": f"Bearer {uid}"}
                            ) as answer:
                                codes[answer.status] = codes.get(answer.status, 0) + 1
                                if answer.status == 200:
                                    posted[name, step] = time.perf_counter()
                            await asyncio.sleep(EVERY_SECONDS)

                    pods = workers()
                    await asyncio.gather(*(trainer(pod, EVERY_SECONDS * i / count) for i, pod in enumerate(pods)))
                last: dict[str, int] = {}
                for name, step in posted:
                    last[name] = max(step, last.get(name, 0))
                with contextlib.suppress(TimeoutError):  # what is still missing is counted below
                    await until(lambda: all(item in seen for item in last.items()), 30)
                memory = rss(process.pid)
                writes = sum(1 for c in api.calls if c.plural == "finetunejobs" and c.subresource == "status")
    lags, lost = [], 0
    for (name, step), at in posted.items():
        later = [t for (n, s), t in seen.items() if n == name and s >= step]
        if later:
            lags.append(max(0.0, min(later) - at))
        else:
            lost += 1
    lags.sort()
    return {
        "benchmark": "report_lag",
        "jobs": count,
        "reports": len(posted),
        "answers": codes,
        "never_written": lost,
        "p50_seconds": round(lags[len(lags) // 2], 3),
        "p99_seconds": round(lags[int(len(lags) * 0.99)], 3),
        "max_seconds": round(lags[-1], 3),
        "target_p99_seconds": 5,
        "status_writes": writes,
        "rss_mib": round(memory, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(measure(options.jobs, options.seconds))))


if __name__ == "__main__":
    main()
