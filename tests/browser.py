"""A real browser for tests of pages; they skip where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
QUIET = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update"


@contextmanager
def chromium() -> Iterator[tuple[Any, Any]]:
    """Headless Chromium, and playwright's `expect`."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=str(CHROMIUM), args=QUIET.split())
        try:
            yield browser, playwright.expect
        finally:
            browser.close()
