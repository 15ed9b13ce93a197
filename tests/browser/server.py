"""The page on a port, as a process that can be killed: ``python -m tests.browser.server``."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    import uvicorn

    from tests.serve.page.helpers import app

    uvicorn.run(
        app(Path(sys.argv[1]), model="embedded"), port=int(sys.argv[2]), log_level="warning"
    )
