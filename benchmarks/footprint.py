"""The operator's resident memory: idle, while 200 jobs train, and with 200 finished jobs that carry full histories.

The jobs go their whole way through the operator (prepare step, workers, reports, success) on a fake cluster in another
process's memory: this one's. One JSON line; memory in MiB. `--jobs N` for another number.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

from operator_process import operator, python, rss, until

from fakecluster.api import FakeApi
from fakecluster.driver import job
from fakecluster.node import COMPONENT, Ending, Node, success
from fakecluster.objects import Object


async def measure(count: int) -> dict[str, object]:
    async with FakeApi().running() as api:
        with tempfile.TemporaryDirectory() as folder:
            async with operator(api, Path(folder)) as (process, _):
                await until(lambda: any(c.verb == "watch" and c.plural == "pods" for c in api.calls))
                await asyncio.sleep(3)
                idle = rss(process.pid)
                node, hold = Node(api.objects), [True]

                def end(pod: Object) -> Ending | None:
                    return None if hold[0] and pod["metadata"]["labels"][COMPONENT] == "worker" else success(pod)

                node.end = end
                began = time.perf_counter()
                for i in range(count):
                    api.objects.create(
                        "finetunejobs",
                        f"team-{i % 5}",
                        job(f"job-{i}", f"team-{i % 5}", output={"uri": f"s3://out/{i}"}),
                    )

                def phases() -> list[str]:
                    node.tick()
                    api.objects.history = api.objects.history[-20000:]
                    return [
                        (o.get("status") or {}).get("phase")
                        for (p, _, _), o in list(api.objects.all.items())
                        if p == "finetunejobs"
                    ]

                await until(lambda: all(p == "Starting" for p in phases()))
                started = time.perf_counter() - began
                await asyncio.sleep(2)
                running = rss(process.pid)
                hold[0] = False
                await until(lambda: all(p == "Succeeded" for p in phases()))
                finished_after = time.perf_counter() - began
                for (plural, namespace, name), _obj in list(api.objects.all.items()):
                    if plural == "finetunejobs":  # what a long run leaves: every bound of the history filled
                        points = [{"step": s * 10, "loss": round(2 / (s + 1), 4)} for s in range(128)]
                        api.objects.set_status((plural, namespace, name), history=points)
                await asyncio.sleep(8)
                finished = rss(process.pid)
                writes = len([c for c in api.writes() if c.plural != "leases"])
    return {
        "benchmark": "footprint",
        "jobs": count,
        "idle_mib": round(idle, 1),
        "running_mib": round(running, 1),
        "finished_mib": round(finished, 1),
        "target_mib": 150,
        "all_workers_made_seconds": round(started, 1),
        "all_finished_seconds": round(finished_after, 1),
        "writes_per_job": round(writes / count, 1),
        "python": "lean" if ".venv-operator" in python() else "development",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    print(json.dumps(asyncio.run(measure(parser.parse_args().jobs))))


if __name__ == "__main__":
    main()
