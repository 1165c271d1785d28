"""`python -m finetune_operator`: settings from the environment, then the operator until SIGTERM.

Exit code 0 means stopped.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import ssl
import sys

from finetune_operator.kube.access import Access, AccessError, load_access
from finetune_operator.kube.lease import LeaseLost
from finetune_operator.logs import configure_logging
from finetune_operator.settings import Settings, SettingsError

EXIT_USAGE, EXIT_LOST, EXIT_ERROR = 2, 3, 1


def main() -> int:
    """Run the operator; returns the process's exit code."""
    try:
        settings = Settings.from_env()
        access = load_access()
    except (SettingsError, AccessError) as error:
        print(f"finetune-operator: {error}", file=sys.stderr)
        return EXIT_USAGE
    configure_logging(settings.log_level, settings.log_format)
    log = logging.getLogger("finetune_operator")
    try:
        asyncio.run(_run(settings, access))
    except LeaseLost as error:
        log.error("%s: this operator ends, so that there is one only", error)
        return EXIT_LOST
    except (OSError, ssl.SSLError) as error:
        log.error("%s", error)
        return EXIT_ERROR
    except Exception:
        log.exception("The operator has ended by an error")
        return EXIT_ERROR
    log.info("Stopped")
    return 0


async def _run(settings: Settings, access: Access) -> None:
    from finetune_operator.lifecycle import Operator

    operator = Operator(settings, access)
    gc.collect()
    gc.freeze()  # what was imported stays: later collections leave it alone
    await operator.run()


if __name__ == "__main__":
    sys.exit(main())
