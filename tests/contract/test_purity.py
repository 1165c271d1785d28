"""The contract stands on pydantic and the standard library alone, and nothing of ours shadows the latter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMPORT_ALL = """
import json, pkgutil, sys
before = set(sys.modules)
import finetune_api
for module in pkgutil.iter_modules(finetune_api.__path__):
    __import__(f"finetune_api.{module.name}")
names = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(names - set(sys.stdlib_module_names))))
"""
PYDANTIC = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}


def test_the_contract_imports_pydantic_and_the_standard_library_only() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=True)
    strangers = {name for name in json.loads(done.stdout) if not name.startswith(("_", "finetune_api"))} - PYDANTIC
    assert strangers == set()


def test_the_folders_operator_and_trainer_are_no_packages() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not (ROOT / "trainer" / "__init__.py").exists()


def test_the_standard_library_s_operator_is_found_from_the_root() -> None:
    code = "import operator; print(operator.__file__, operator.add(1, 2))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    file, total = done.stdout.split()
    assert not file.startswith(str(ROOT / "operator"))
    assert total == "3"
