"""Which process runs which tests: a file's in one, in order, and those that share played worlds together.

Belongs here: the scheduler of pytest-xdist. Does not belong here: fixtures (conftest.py).
"""

from __future__ import annotations

from typing import Any

import pytest

PLAYED = ("test_loop.py", "test_readme.py")
"""They ask the same played worlds, each of which takes minutes; the README's commands after the others."""


def scope(nodeid: str) -> str:
    path = nodeid.partition("::")[0]
    return "played" if path.endswith(PLAYED) else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Files in the order of collection, not by their number of tests."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid)

    config.option.loadscopereorder = False
    return ByFile(config, log)
