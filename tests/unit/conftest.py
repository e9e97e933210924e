"""What the studio's tests share: an open studio without a worker, and a client of its server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

    from app.core import Core


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    from tests.app_parts import studio

    with studio(tmp_path / "data") as core:
        yield core


@pytest.fixture
def client(core: Core) -> Iterator[TestClient]:
    from fastapi.testclient import TestClient

    from app.server import make_server

    with TestClient(make_server(core), base_url="http://127.0.0.1:7860") as client:
        yield client
