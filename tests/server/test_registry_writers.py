"""Several writers at once, as coordinator, dashboard, device routes and commands are: each is as if alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from registry_databases import DATABASES, fresh_database
from toy_fleet import expectation, honest_reply

from mcoe_model.protocol import CheckIn
from server.acceptance import Accepted, judge
from server.registry import PUBLISHED, Registry, RoundRow, Transfer
from server.registry.database import open_database

FIRST = "0" * 64


@pytest.fixture(params=DATABASES)
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    with fresh_database(request.param, tmp_path, migrated=True) as url:
        made = Registry(open_database(url), "contract")
        made.add_first_model(FIRST, "generation")
        yield made
        made.engine.dispose()


def at_once(*tasks: Callable[[], Any]) -> list[Any]:
    """What the tasks return that begin together, each in its thread. What one of them raises is raised."""
    together = Barrier(len(tasks))

    def run(task: Callable[[], Any]) -> Any:
        together.wait()
        return task()

    with ThreadPoolExecutor(len(tasks)) as threads:
        return list(threads.map(run, tasks))


def answered(registry: Registry, number: int, *clients: str) -> RoundRow:
    """A round that these clients have answered."""
    for client in clients:
        registry.saw(CheckIn(client, 10))
    row = registry.open_round(str(registry.newest_model()), clients, {}, None)
    expected = expectation(round_number=number, cohort=frozenset(clients))
    for client in clients:
        verdict = judge(honest_reply(expected, client), expected)
        assert isinstance(verdict, Accepted)
        assert registry.record_reply(row.id, client, verdict, Transfer(1, 1))
    return row


def test_versions_that_are_made_at_once_have_numbers_of_their_own(registry: Registry) -> None:
    for number in range(1, 11):
        row = answered(registry, number, "a")
        at_once(
            lambda row=row, number=number: registry.publish_round(row.id, f"{number:064x}", "generation"),  # type: ignore[misc]
            lambda: registry.release_again(1),
            lambda number=number: registry.import_model(f"{100 + number:064x}", "generation"),  # type: ignore[misc]
        )
        # A round that the others' decision came before is ended by it, and makes no version.
        versions = [model.version for model in registry.models()]
        assert versions == list(range(1, len(versions) + 1)) and len(versions) > 2 * number


@pytest.mark.parametrize("leave", ["forget", "withdraw"])
def test_a_client_may_leave_while_its_round_is_published(registry: Registry, leave: str) -> None:
    for number in range(1, 21):
        leaving = f"client {number}"
        row = answered(registry, number, "a", leaving)
        updates = [contribution.update_id for contribution in registry.contributions(row.id)]
        sha256 = f"{number:064x}"
        go: Callable[[], Any] = {
            "forget": lambda leaving=leaving: registry.forget(leaving, "keep"),  # type: ignore[misc]
            "withdraw": lambda leaving=leaving: registry.withdraw(leaving),  # type: ignore[misc]
        }[leave]
        there, gone = at_once(
            lambda row=row, sha256=sha256, updates=updates: registry.publish_round(  # type: ignore[misc]
                row.id, sha256, "generation", updates=updates
            ),
            go,
        )
        # Whoever was second knew of the first: the model is there with the update, or the update counts no more.
        discarded = gone if leave == "withdraw" else gone.pending
        assert there == registry.has_model(sha256) == (not discarded)
        if not there:
            left = [contribution.update_id for contribution in registry.contributions(row.id)]
            assert len(left) == 1 and registry.publish_round(row.id, sha256, "generation", updates=left)
        assert registry.round(row.id).state == PUBLISHED


def test_a_client_may_be_forgotten_while_it_checks_in(registry: Registry) -> None:
    for number in range(20):
        client = f"client {number}"
        registry.add_client(client, f"PEM {number}", number)
        at_once(
            lambda client=client: registry.saw_member(CheckIn(client, 10)),  # type: ignore[misc]
            lambda client=client: registry.forget(client),  # type: ignore[misc]
        )
    assert registry.clients() == []
