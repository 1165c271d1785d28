"""How the model was trained: the values in force, what the user gave, and versions."""

from __future__ import annotations

from finetune_trainer.output.page.numbers import setting
from finetune_trainer.output.page.tables import fact_table
from finetune_trainer.output.result import Result


def settings(result: Result) -> str:
    chosen = result.report.resolved.to_json() if result.report.resolved else {}
    resolved = [(k, setting(v)) for k, v in chosen.items()]
    given = [("method", result.method.name), *((k, setting(v)) for k, v in result.method_settings.items())]
    given += [(k, setting(v)) for k, v in result.training_settings.items() if k not in chosen]
    world = result.config.world
    given += [("processes", f"{world.workers} × {world.processes_per_worker}")]
    given += [(f"{name} version", value) for name, value in result.versions.items()]
    cards = [f'<div class="card"><h3>Values in force</h3>{fact_table(resolved)}</div>'] if resolved else []
    return (
        f'<h2>Settings</h2><section class="pair">{"".join(cards)}<div class="card"><h3>As given, and'
        f" versions</h3>{fact_table(given)}</div></section>"
    )
