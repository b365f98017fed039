"""The OpenAPI document from which the TypeScript client's types are generated.

``python -m tools.typescript > clients/typescript/openapi.json``. openapi-typescript makes types of it when the client is built.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from dispatch.cli import pipes


def document() -> dict[str, Any]:
    """The document of the task types in `tasks`, where API keys are required."""
    # Here, not above: what imports Flask is slow to start.
    import tasks  # noqa: PLC0415
    from dispatch import tasktypes  # noqa: PLC0415
    from dispatch.gateway import application  # noqa: PLC0415

    return application.document(tasktypes.load(tasks))


if __name__ == "__main__":
    with pipes.quiet():
        json.dump(document(), sys.stdout, indent=1, ensure_ascii=False)
        print()
