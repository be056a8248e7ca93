"""What the server says of this program: kept over a restart, logged when it is new."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import pytest

from client.told import Told, ToldFile
from mcoe_model.protocol import News


def test_it_is_kept_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "told.json"
    with caplog.at_level(logging.INFO, "mcoe"):
        for standing in ("ok", "", "too-old", "too-old", "", "ok"):
            ToldFile(file).hear(News(standing=standing))  # type: ignore[arg-type]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "too old" in caplog.records[0].message
    assert ToldFile(file).read() == Told("ok")


def test_the_next_check_in_is_a_time_of_this_clock(tmp_path: Path) -> None:
    told = ToldFile(tmp_path / "told.json")
    told.hear(News(standing="update-advised", next_check_in_s=100.0))
    assert 90 < told.read().next_check_in - time.time() <= 100
    told.hear(News())
    assert told.read() == Told("update-advised")


@pytest.mark.parametrize("content", ["", "[]", '{"standing": "too-old", "client_version": "0.0.1"}', '{"what": 1}'])
def test_what_another_version_heard_or_nobody_can_read_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "told.json").write_text(content)
    assert ToldFile(tmp_path / "told.json").read() == Told()


def test_the_file_names_the_version_that_heard_it(tmp_path: Path) -> None:
    ToldFile(tmp_path / "told.json").hear(News(standing="too-old"))
    assert json.loads((tmp_path / "told.json").read_text())["client_version"] == Told().client_version
