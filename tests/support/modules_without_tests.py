"""Modules that have no file of tests of their own, and what tests them instead. The list may only shrink."""

from __future__ import annotations

WITHOUT_TEST_FILE: dict[str, str] = {}
