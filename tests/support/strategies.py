"""Hypothesis strategies for the contract's values: whatever a user, an operator or a trainer may say.

`json_of` draws from a structural schema, for models without rules between fields; `specs` keeps the rules of a spec.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from finetune_api.tasks import TASKS

TEXT = st.characters(exclude_categories=("Cs",))


def json_of(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """JSON data that fits a structural schema without patterns; optional fields come and go."""
    kind = schema["type"]
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if kind == "object" and "additionalProperties" in schema:
        keys = st.text(TEXT, min_size=1, max_size=24)
        return st.dictionaries(keys, json_of(schema["additionalProperties"]), max_size=min(3, schema["maxProperties"]))
    if kind == "object":
        required = {name: json_of(schema["properties"][name]) for name in schema.get("required", ())}
        optional = {name: json_of(field) for name, field in schema["properties"].items() if name not in required}
        return st.fixed_dictionaries(required, optional=optional)
    if kind == "array":
        keys = schema.get("x-kubernetes-list-map-keys")
        unique = (lambda item: item[keys[0]]) if keys else None
        return st.lists(json_of(schema["items"]), max_size=min(3, schema["maxItems"]), unique_by=unique)
    if kind == "string" and schema.get("format") == "date-time":
        return st.datetimes().map(lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0"))
    if kind == "string":
        return st.text(TEXT, min_size=schema.get("minLength", 0), max_size=min(40, schema.get("maxLength", 40)))
    if kind == "boolean":
        return st.booleans()
    low, high = schema.get("minimum"), schema.get("maximum")
    if kind == "integer":
        return st.integers(-(2**63) if low is None else low, 2**63 - 1 if high is None else high)
    open_low, open_high = schema.get("exclusiveMinimum", False), schema.get("exclusiveMaximum", False)
    return st.floats(low, high, allow_nan=False, allow_infinity=False, exclude_min=open_low, exclude_max=open_high)


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


_SEGMENT = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Z"), exclude_characters="?#*/"), min_size=1, max_size=12
)
_BUCKET = st.from_regex(r"[a-z0-9][-a-z0-9.]{1,20}[a-z0-9]", fullmatch=True)
_S3 = st.builds(lambda bucket, path: "/".join([f"s3://{bucket}", *path]), _BUCKET, st.lists(_SEGMENT, max_size=4))
_WORD = st.text(TEXT, min_size=1, max_size=12)
_NAME = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?(\.[a-z0-9]{1,8})?", fullmatch=True)
_LABELS = st.dictionaries(
    st.from_regex(r"(team\.org/)?[A-Za-z0-9]{1,9}", fullmatch=True),
    st.from_regex(r"[a-z0-9]{0,9}", fullmatch=True),
    max_size=3,
)
_CORES = st.one_of(st.integers(0, 64), st.from_regex(r"[0-9]{1,4}(m|\.[0-9])?", fullmatch=True))
_SOURCE = st.one_of(
    st.fixed_dictionaries({"uri": _S3}),
    st.fixed_dictionaries(
        {"uri": st.just("hf://org/data")}, optional={"revision": st.just("main"), "split": st.just("train")}
    ),
)
_HELD_OUT = st.one_of(_SOURCE, st.fixed_dictionaries({"fraction": st.floats(1e-6, 0.25)}))
_ENV = st.one_of(
    st.fixed_dictionaries({"value": st.text(TEXT, max_size=20)}),
    st.fixed_dictionaries({"secretKeyRef": st.fixed_dictionaries({"name": _NAME, "key": st.just("k.1")})}),
)


_PAIRS = st.fixed_dictionaries({"prompt": _WORD, "completion": _WORD})
_COLUMNS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "text-classification": optional(text=_WORD, label=_WORD),
    "multi-label-classification": st.one_of(
        optional(text=_WORD, labels=_WORD),
        optional(text=_WORD, labelColumns=st.lists(_WORD, min_size=1, max_size=3, unique=True)),
    ),
    "text-regression": optional(text=_WORD, score=_WORD),
    "causal-lm": st.one_of(optional(messages=_WORD), _PAIRS),
}


def _each_once(roles: dict[str, Any]) -> bool:
    names = [name for value in roles.values() for name in ([value] if isinstance(value, str) else value)]
    return len(set(names)) == len(names)


def _classes_once(data: dict[str, Any]) -> bool:
    return "labels" not in data or "labelColumns" not in data.get("columns", {})


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """The JSON of a valid spec for a cluster."""
    task = draw(st.sampled_from([*_COLUMNS]))
    columns = _COLUMNS[task].filter(_each_once)
    data = {"train": _SOURCE}
    extras: dict[str, Any] = {
        "validation": _HELD_OUT,
        "test": _HELD_OUT,
        "columns": columns,
        "maxBadRows": st.integers(0, 1_000_000),
    }
    if task.endswith("-classification"):
        extras["labels"] = st.lists(_WORD, min_size=2, max_size=5, unique=True)
    spec: dict[str, Any] = {
        "task": task,
        "model": draw(
            st.one_of(st.fixed_dictionaries({"uri": _S3}), st.just({"uri": "hf://org/model", "revision": "v1"}))
        ),
        "data": draw(st.fixed_dictionaries(data, optional=extras).filter(_classes_once)),
        "output": draw(
            st.fixed_dictionaries(
                {"uri": st.just("s3://the-only-output/prefix")}, optional={"overwrite": st.booleans()}
            )
        ),
    }
    method = draw(st.sampled_from(["full", "freeze", "lora"]))
    settings = {
        "freeze": optional(lastLayers=st.integers(0, 12)),
        "lora": optional(rank=st.integers(1, 64), dropout=st.floats(0, 0.9)),
    }
    kind = st.just(method)
    parts = {
        "method": st.fixed_dictionaries(
            {"type": kind}, optional={method: settings[method]} if method in settings else {}
        ),
        "training": optional(
            epochs=st.floats(1e-3, 1000),
            globalBatchSize=st.integers(64, 65536),
            microBatchSize=st.integers(1, 64),
            seed=st.integers(0, 2**32 - 1),
            learningRate=st.floats(1e-12, 10),
            schedule=st.sampled_from(["linear", "cosine", "constant", "inverse-sqrt", "wsd", "cosine-restarts"]),
            optimizer=st.sampled_from(["adamw", "adafactor", "lion", "sgd"]),
            maxSteps=st.integers(1, 10**8),
        ),
        "checkpoints": optional(everyMinutes=st.floats(0.1, 100), keepLast=st.integers(1, 100), resumeFrom=_S3),
        "prepare": optional(nodeSelector=_LABELS),
        "workers": optional(
            replicas=st.integers(1, 512),
            nodeSelector=_LABELS,
            labels=_LABELS,
            resources=optional(limits=st.fixed_dictionaries({"cpu": _CORES})),
            env=st.dictionaries(st.from_regex(r"[A-EG-Z_][A-Z0-9_]{0,9}", fullmatch=True), _ENV, max_size=3).map(
                lambda found: [{"name": name, **value} for name, value in found.items()]
            ),
        ),
        "storage": optional(region=st.just("eu-central-1"), credentialsSecret=_NAME, pathStyle=st.booleans()),
        "suspend": st.booleans(),
        "ttlSecondsAfterFinished": st.integers(0, 31_536_000),
    }
    if "validation" in spec["data"]:
        metrics = ["auto", *TASKS[task].metrics]
        parts["evaluation"] = optional(
            everyEpochs=st.floats(0.1, 10),
            metric=st.sampled_from(metrics),
            earlyStopping=optional(patience=st.integers(1, 9)),
        )
    return spec | draw(optional(**parts))
