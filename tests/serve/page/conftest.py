from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", exc_type=ImportError)
pytest.importorskip("httpx2", exc_type=ImportError)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    from fastapi.testclient import TestClient

    from tests.serve.page.helpers import Page, app

    with TestClient(app(tmp_path), base_url="http://127.0.0.1:8000") as client:
        yield Page(client)
