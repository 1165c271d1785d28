"""Keep secrets in: no text leaves the process with a secret's value in it (I7)."""

from __future__ import annotations

import json
import os
import re
from urllib.parse import quote

_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|PRIVATE_?KEY|API_?KEY|ACCESS_KEY", re.IGNORECASE)
_USER_INFO = re.compile(r"(?<=://)[^/\s@:]+:[^/\s@]+(?=@)")
_BEARER = re.compile(r"(?i)(?<=bearer )[A-Za-z0-9._~+/=-]{8,}")
_SHORTEST_SECRET = 6
"""Shorter values cannot be told from ordinary words."""


def redact(text: str) -> str:
    """`text` without the values of secret environment variables, bearer tokens, and user:password in URLs.

    Secret are the variables whose names say so, and those that FINETUNE_SECRET_ENV lists (the operator names every
    variable that comes from a Secret there).
    """
    named = {name.strip() for name in os.environ.get("FINETUNE_SECRET_ENV", "").split(",")}
    values = {
        v
        for k, v in os.environ.items()
        if (k in named or _SECRET_NAME.search(k)) and k != "FINETUNE_SECRET_ENV" and len(v) >= _SHORTEST_SECRET
    }
    values |= {
        v.strip() for v in values if len(v.strip()) >= _SHORTEST_SECRET
    }  # a Secret's file often ends with a new line
    forms = {form for v in values for form in (v, quote(v, safe=""), json.dumps(v)[1:-1], repr(v)[1:-1])}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "[secret]")
    return _BEARER.sub("[secret]", _USER_INFO.sub("[secret]", text))
