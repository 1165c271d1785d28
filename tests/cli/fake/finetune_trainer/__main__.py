"""Follow FAKE_SCRIPT: a JSON list, one entry for each process started, in order.

An entry: {"step": "prepare" | "launch", "steps": n, "from": step, "seconds": per step, "exit": code, "problem": {...},
"signal": number to die of, "checkpoint": step, "stubborn": ignore SIGTERM, "say": line of the log}; of a predict step
{"said": reports, "answers": rows, "exit": code, "endless": answer for ever}; of lr-find
{"points": what it writes}. Which entries are used up is counted in FAKE_COUNT. What it was given is appended to
FAKE_SEEN.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

step, config = sys.argv[1], json.loads(Path(sys.argv[3]).read_text())
count = Path(os.environ["FAKE_COUNT"])
number = len(count.read_text()) if count.exists() else 0
count.write_text("x" * (number + 1))
entry = json.loads(os.environ["FAKE_SCRIPT"])[number]
assert entry.get("step", step) == step, f"process {number} is {step}, the script says {entry['step']}"
seen = {
    "step": step,
    "config": config,
    "env": {k: v for k, v in os.environ.items() if k.startswith(("AWS_", "MY_"))},
    "pid": os.getpid(),
}
if step == "predict":
    with open(os.environ["FAKE_SEEN"], "a") as file:
        file.write(json.dumps(seen) + "\n")
    if entry.get("endless"):
        print(json.dumps({"stage": "answering", "task": "t", "rows": 1, "total": 9}), flush=True)
        time.sleep(600)
    print("a word of some library", flush=True)
    for line in entry.get("said", ()):
        print(json.dumps(line), flush=True)
    Path(config["target"]).write_text("".join(json.dumps(row) + "\n" for row in entry.get("answers", ())))
    sys.exit(entry.get("exit", 0))

reporting, total = config["reporting"], entry.get("total", 10)
sequence = 0


def report(**fields: object) -> None:
    global sequence
    sequence += 1
    body = {
        "jobId": config["job"]["id"],
        "attempt": config["attempt"],
        "sequence": sequence,
        "time": time.time(),
        **fields,
    }
    with open(reporting["file"], "a") as file:
        file.write(json.dumps(body) + "\n")


def checkpoint(at: int) -> dict:
    uri = f"{config['output']['uri']}/ckpt/1/{at}"
    return {"step": at, "uri": uri, "bytes": 2048, "digest": f"sha256:{at}", "time": "2026-01-31T12:00:00Z"}


def leave(code: int, at: int, saved: int | None, problem: dict | None = None, **more: object) -> None:
    word = {"jobId": config["job"]["id"], "attempt": config["attempt"], "exitCode": code, "step": at, **more}
    word |= {"problem": problem} if problem else {}
    word |= {"checkpoint": checkpoint(saved)} if saved is not None else {}
    if not entry.get("silent"):
        Path(reporting["terminationFile"]).write_text(json.dumps(word))
    sys.exit(code)


if "child" in entry:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    seen["child"] = child.pid
with open(os.environ["FAKE_SEEN"], "a") as file:
    file.write(json.dumps(seen) + "\n")
stopping = False


def on_term(*_: object) -> None:
    global stopping
    stopping = not entry.get("stubborn")


signal.signal(signal.SIGTERM, on_term)
for line in entry.get("say", []):
    print(line, flush=True)
if step == "prepare":
    data = {
        "trainRows": 320,
        "validationRows": 30,
        "testRows": 50,
        "objects": 2,
        "bytes": 4096,
        "labels": ["ham", "spam"],
        "labelCount": 2,
    }
    data["findings"] = [{"kind": "Truncated", "count": 3, "message": "3 rows are longer than maxLength and are cut"}]
    report(stage="preparing")
    if "exit" not in entry:
        resolved = {"totalSteps": total, "globalBatchSize": 32, "learningRate": 0.0002}
        report(stage="finished", data=data, resolved=resolved | {"columns": {"text": "body", "label": "kind"}})
    leave(entry.get("exit", 0), 0, None, entry.get("problem"))

if step == "lr-find":
    Path(sys.argv[3]).with_name("points.json").write_text(json.dumps(entry["points"]))
    sys.exit(0)

at = saved = entry.get("from", 0)
history = []
report(stage="loading")
report(stage="training", resumedFromStep=at) if at else None
while at < entry.get("steps", total):
    at += 1
    loss = 1.0 / at
    history.append({"step": at, "loss": loss})
    progress = {
        "step": at,
        "totalSteps": total,
        "epoch": at / total,
        "percent": 100 * at / total,
        "loss": loss,
        "rowsPerSecond": 10.9,
        "etaSeconds": (total - at) * 1.5,
    }
    known = {"checkpoints": [checkpoint(saved)] if saved else [], "history": history}
    report(stage="training", progress=progress, **known)
    if at == entry.get("checkpoint"):
        saved = at
        evaluated = {
            "evaluation": {"macro-f1": 0.9, "loss": 0.3},
            "best": {"step": at, "metric": "macro-f1", "value": 0.9},
        }
        report(stage="evaluating", progress=progress, checkpoints=[checkpoint(at)], history=history, **evaluated)
    if stopping:
        saved = at
        report(stage="saving", progress=progress, checkpoints=[checkpoint(at)], history=history)
        leave(40, at, saved, {"reason": "Interrupted", "message": "told to stop"})
    time.sleep(entry.get("seconds", 0.01))
if "signal" in entry:
    os.kill(os.getpid(), entry["signal"])
if "exit" in entry:
    leave(entry["exit"], at, saved or None, entry.get("problem"))
folder = Path(config["output"]["uri"].removeprefix("file://"))
folder.mkdir(parents=True, exist_ok=True)
(folder / "result.json").write_text("{}")
output = {"uri": config["output"]["uri"], "bytes": 4096, "report": config["output"]["uri"] + "/report.html"}
test = {"macro-f1": 0.961, "macro-f1-low": 0.948, "macro-f1-high": 0.973}
report(
    stage="finished",
    progress=progress,
    test=test,
    output=output,
    checkpoints=[checkpoint(at)],
    history=history,
    seconds={"train": 1.5},
)
leave(0, at, at, test=test, output=output)
