"""The application, filled once by the data Job's own program."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loadtest.data import socialgraph
from tests.loadtest.running import SHORT, application


@pytest.fixture(scope="module")
def filled() -> Iterator[str]:
    """Its address; 30 users with ten posts each, each known by four others or more."""
    with application("--work", "0.2") as address:
        settings = {"TARGET": address, "USERS": SHORT["USERS"], "EDGES_A_USER": "4"}
        assert socialgraph.run(socialgraph.settings_of(settings)) == 0
        yield address
