"""Write what follows from the models: the CRD, its copy in the chart, the manifest reference and the page of tasks;
`--check` only compares.

The chart's copy stands in templates/ and is kept at uninstall: Helm never upgrades a crds/ folder, and deleting the CRD
would delete every user's jobs.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import yaml

from finetune_api import GROUP, PLURAL
from finetune_api.crd import custom_resource_definition
from reference import reference
from tasks_page import tasks_page

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Generated from crds/finetune_api by `make crds`; do not edit.\n"


class _Dumper(yaml.SafeDumper):
    """Without anchors: kubectl reads them, people do not."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def to_yaml(value: dict[str, Any]) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=150, allow_unicode=True))


def chart_template(crd: dict[str, Any]) -> str:
    """The CRD as a Helm template: optional, and kept when the release goes."""
    kept = copy.deepcopy(crd)
    kept["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}
    text = to_yaml(kept).replace("{{", '{{ "{{" }}')
    return f"{HEADER}{{{{- if .Values.crds.install }}}}\n{text}{{{{- end }}}}\n"


def files() -> dict[Path, str]:
    """Every generated file with its content."""
    crd = custom_resource_definition()
    return {
        ROOT / "crds" / f"{GROUP}_{PLURAL}.yaml": HEADER + to_yaml(crd),
        ROOT / "charts" / "finetune-operator" / "templates" / "crd.yaml": chart_template(crd),
        ROOT / "docs" / "reference.md": reference(crd),
        ROOT / "docs" / "tasks.md": tasks_page(),
    }


def main(arguments: list[str]) -> int:
    check = arguments == ["--check"]
    if arguments and not check:
        print("usage: generate.py [--check]", file=sys.stderr)
        return 2
    stale = [path for path, text in files().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        name = path.relative_to(ROOT)
        if check:
            print(f"{name} does not follow from the models: run `make crds` and commit it", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files()[path])
            print(f"wrote {name}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
