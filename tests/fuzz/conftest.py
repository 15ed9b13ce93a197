"""Which files are read in a process of their own."""

from __future__ import annotations

import os

from tests.fuzz import AUDITED, AUDITED_FILES

collect_ignore = [] if AUDITED in os.environ else list(AUDITED_FILES)
