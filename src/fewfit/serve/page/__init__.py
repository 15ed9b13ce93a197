"""The page at ``/`` for the person who has the labels; ``docs/page.md`` says what it does."""

from __future__ import annotations

from fewfit.serve.page.desk import Desk
from fewfit.serve.page.routes import page_router

__all__ = ["Desk", "page_router"]
