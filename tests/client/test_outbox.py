"""The outbox: what was trained is kept until the server has said what became of it, and is never sent in pieces."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.kept import kept_ids
from client.learner import Learned
from client.outbox import Outbox
from mcoe_model.protocol import MAX_OUTBOX, News, TrainReport, UpdateMeta
from mcoe_model.router_statistics import RouterStatistics
from mcoe_model.sealed import read_sealed, write_sealed

KEY = bytes(range(32))
REPORT = TrainReport(4, 1.5, 1.25, 0.5, RouterStatistics(4, 2, (4, 3, 1, 0), (1.0, 1.5, 1.5, 0.0)))


def learned(number: int) -> Learned:
    update = {
        "b": np.float32([[1, 2, 3], [4, 5, number]]).T,  # not in C order
        "a": np.array(0.1 + number, np.float32),
        "ж": np.zeros((0, 3), np.float32),
    }
    meta = UpdateMeta(f"{number:032x}", "w1", 3, "b" * 64, "d" * 16, "head", (0, 3))
    return Learned(update, meta, REPORT, ("1-1", "2-2"))


def kept_before(outbox: Outbox, number: int, seconds: int) -> None:
    """Make an update older than it is."""
    path = outbox.folder / f"{number:032x}.sealed"
    os.utime(path, ns=(0, path.stat().st_mtime_ns - seconds * 10**9))


def test_an_update_comes_back_bit_for_bit_also_in_another_process_life(tmp_path: Path) -> None:
    put = learned(1)
    Outbox(tmp_path / "outbox", KEY).put(put)
    found = Outbox(tmp_path / "outbox", KEY).find(put.meta.update_id, 3)
    assert found is not None
    assert (found.meta, found.report) == (put.meta, put.report)
    assert found.update.keys() == put.update.keys()
    for name, tensor in put.update.items():
        assert (found.update[name].dtype, found.update[name].shape) == (tensor.dtype, tensor.shape)
        assert found.update[name].tobytes() == tensor.tobytes()


def test_an_update_answers_a_later_round_under_that_rounds_number(tmp_path: Path) -> None:
    outbox, put = Outbox(tmp_path, KEY), learned(1)
    outbox.put(put)
    found = outbox.find(put.meta.update_id, 9)
    assert found is not None and found.meta == replace(put.meta, round_number=9)
    again = outbox.find(put.meta.update_id, 3)
    assert again is not None and again.meta == put.meta


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "never made", KEY)
    assert outbox.ids() == ()
    assert outbox.find("0" * 32, 1) is None
    outbox.hear(News(("0" * 32,), ("1" * 32,)))


def test_ids_come_oldest_first(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, KEY)
    for number in (2, 3, 1):
        outbox.put(learned(number))
    kept_before(outbox, 3, 3600)
    kept_before(outbox, 1, 7200)
    assert [int(update_id, 16) for update_id in outbox.ids()] == [1, 3, 2]


def test_a_check_in_lists_no_more_than_it_may_and_those_the_newest(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, KEY)
    for number in range(MAX_OUTBOX + 2):
        outbox.put(learned(number))
        kept_before(outbox, number, 1000 - number)
    assert [int(update_id, 16) for update_id in outbox.ids()] == list(range(2, MAX_OUTBOX + 2))


def test_what_the_server_took_or_never_will_goes_and_the_rest_stays(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, KEY)
    for number in range(4):
        outbox.put(learned(number))
    outbox.hear(News(accepted=(f"{0:032x}",), dropped=(f"{2:032x}", "f" * 32)))
    assert {int(update_id, 16) for update_id in outbox.ids()} == {1, 3}
    assert outbox.find(f"{0:032x}", 3) is None and outbox.find(f"{1:032x}", 3) is not None


def test_updates_of_other_bases_go(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, KEY)
    for number, base in enumerate("bcd"):
        made = learned(number)
        outbox.put(replace(made, meta=replace(made.meta, base_sha256=base * 64)))
    outbox.retain(("b" * 64, "d" * 64))
    assert {int(update_id, 16) for update_id in outbox.ids()} == {0, 2}


def test_an_update_that_is_put_again_replaces_itself(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, KEY)
    outbox.put(learned(1))
    outbox.put(replace(learned(1), report=replace(REPORT, seconds=9.0)))
    found = outbox.find(f"{1:032x}", 3)
    assert found is not None and found.report.seconds == 9.0
    assert len(outbox.ids()) == 1


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.99])
def test_a_torn_file_is_as_good_as_none(tmp_path: Path, share: float) -> None:
    outbox, put = Outbox(tmp_path, KEY), learned(1)
    outbox.put(put)
    (file,) = tmp_path.glob("*.sealed")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    assert outbox.find(put.meta.update_id, 3) is None
    assert outbox.ids() == ()  # the server need not be asked about it
    outbox.put(put)
    assert outbox.find(put.meta.update_id, 3) is not None


@pytest.mark.parametrize(
    ("right", "wrong"),
    [(b"update_id", b"update-id"), (b"loss_before", b"loss-before"), (b"__metadata__", b"__metadatum_")],
)
def test_a_file_that_says_something_else_is_as_good_as_none(tmp_path: Path, right: bytes, wrong: bytes) -> None:
    outbox, put = Outbox(tmp_path, KEY), learned(1)
    outbox.put(put)
    (file,), context = tmp_path.glob("*.sealed"), f"update {put.meta.update_id}"
    content = b"".join(read_sealed(file, KEY, context))
    assert right in content
    write_sealed(file, KEY, context, [content.replace(right, wrong)])
    assert outbox.find(put.meta.update_id, 3) is None
    assert outbox.ids() == ()


def test_an_update_is_sealed_and_opens_under_its_own_name_and_key_only(tmp_path: Path) -> None:
    outbox, put = Outbox(tmp_path, KEY), learned(1)
    outbox.put(put)
    (file,) = tmp_path.glob("*.sealed")
    assert b"loss_before" not in file.read_bytes() and b"update_id" not in file.read_bytes()
    file.rename(tmp_path / f"{2:032x}.sealed")
    assert outbox.find(f"{2:032x}", 3) is None
    outbox.put(put)
    assert Outbox(tmp_path, bytes(32)).find(put.meta.update_id, 3) is None


def test_what_a_crash_left_half_written_is_no_update(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, KEY)
    outbox.put(learned(1))
    (tmp_path / f".{2:032x}.sealed.x1y2").write_bytes(b"half")
    assert [int(update_id, 16) for update_id in outbox.ids()] == [1]


def test_an_update_that_goes_while_they_are_listed_is_none(tmp_path: Path) -> None:
    (tmp_path / f"{'b' * 32}.sealed").write_bytes(b"here")
    (tmp_path / f"{'a' * 32}.sealed").symlink_to("nowhere")  # a name without a file, as of one that has just gone
    assert kept_ids(tmp_path) == ("b" * 32,)
