"""Who is there: nodes that come and go, nodes that lie about their name, and clients that are asked again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from mcoe_model.protocol import CheckIn, OutboxNews
from server.presence import Presence
from server.superlink.messages import SERVER_NODE_ID, Run, assign_message_id, empty_run, identify_process

UPDATE = "0123456789abcdef" * 2
Answer = Callable[[Message], Message | None]


class Town(Grid):
    """A grid in memory whose nodes come, go and answer as the test says; None is no answer yet."""

    def __init__(self, nodes: dict[int, Answer]) -> None:
        identify_process(run_id=1, node_id=SERVER_NODE_ID)
        self.nodes = nodes
        self.asked: list[int] = []
        self.messages: dict[str, Message] = {}

    def get_node_ids(self) -> list[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        pushed = []
        for message in messages:
            message_id = f"message {len(self.asked)}"
            assign_message_id(message, message_id)
            self.asked.append(message.metadata.dst_node_id)
            self.messages[message_id] = message
            pushed.append(message_id)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        answers = []
        for message_id in message_ids:
            question = self.messages.get(message_id)
            node = question.metadata.dst_node_id if question else 0
            if question is None or node not in self.nodes:
                continue
            answer = self.nodes[node](question)
            if answer is not None:
                del self.messages[message_id]
                answers.append(answer)
        return answers

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        raise NotImplementedError

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        raise NotImplementedError

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        return empty_run(1)


def says(check_in: CheckIn | dict[str, Any], heard: list[OutboxNews] | None = None) -> Answer:
    """A node that answers every question so."""
    record = check_in.to_record() if isinstance(check_in, CheckIn) else check_in

    def answer(question: Message) -> Message:
        if heard is not None:
            heard.append(OutboxNews.from_record(dict(question.content["news"])))  # type: ignore[arg-type]
        return Message(RecordDict({"check-in": ConfigRecord(record)}), reply_to=question)  # type: ignore[arg-type]

    return answer


def silent(question: Message) -> None:
    """A node that has not answered yet."""


class Seen(list[CheckIn]):
    """What the registry was told."""

    def __call__(self, check_in: CheckIn) -> None:
        self.append(check_in)


@pytest.fixture
def town() -> Town:
    return Town({11: says(CheckIn("a", 5)), 12: says(CheckIn("b", 7))})


def present(presence: Presence) -> dict[str, tuple[int, int]]:
    """Node and clips of every client that is there."""
    return {client: (found.node, found.check_in.examples) for client, found in presence.clients.items()}


def test_nodes_are_asked_once_and_are_there_while_they_are_online(town: Town) -> None:
    seen = Seen()
    presence = Presence(town, seen)
    for _ in range(3):
        presence.refresh()
    assert present(presence) == {"a": (11, 5), "b": (12, 7)}
    assert town.asked == [11, 12]
    assert [check_in.client_id for check_in in seen] == ["a", "b"]
    left = town.nodes.pop(11)
    presence.refresh()
    assert present(presence) == {"b": (12, 7)}
    town.nodes[11] = left
    presence.refresh()
    assert present(presence) == {"a": (11, 5), "b": (12, 7)}
    assert town.asked == [11, 12, 11]


def test_a_node_that_leaves_before_it_answers_is_waited_for_no_longer(town: Town) -> None:
    town.nodes[11] = silent
    presence = Presence(town, Seen())
    presence.refresh()
    assert (presence.unanswered, set(presence.clients)) == (1, {"b"})
    presence.refresh()
    assert town.asked == [11, 12]  # one question at a time
    del town.nodes[11]
    presence.refresh()
    assert presence.unanswered == 0
    town.nodes[11] = says(CheckIn("a", 5))
    presence.refresh()
    assert set(presence.clients) == {"a", "b"}


def test_a_client_that_comes_back_as_another_node_is_there_once(town: Town) -> None:
    presence = Presence(town, Seen())
    presence.refresh()
    del town.nodes[11]
    town.nodes[13] = says(CheckIn("a", 6))
    presence.refresh()
    assert present(presence) == {"b": (12, 7), "a": (13, 6)}


MEMBERS = {11: "a", 12: "b"}


def test_a_node_that_lies_about_its_name_is_nobody(town: Town) -> None:
    """Nor does it take the place of the client that it says it is, whoever answers first."""
    seen = Seen()
    town.nodes[10] = says(CheckIn("b", 999))
    presence = Presence(town, seen, (MEMBERS | {10: "liar"}).get)
    presence.refresh()
    assert present(presence) == {"a": (11, 5), "b": (12, 7)}
    assert {check_in.client_id: check_in.examples for check_in in seen} == {"a": 5, "b": 7}


def test_a_node_that_is_no_member_is_not_even_asked(town: Town) -> None:
    town.nodes[13] = says(CheckIn("c", 9))
    presence = Presence(town, Seen(), MEMBERS.get)
    presence.refresh()
    assert (town.asked, set(presence.clients)) == ([11, 12], {"a", "b"})


def test_in_a_simulation_the_first_node_with_a_name_keeps_it(town: Town) -> None:
    seen = Seen()
    town.nodes[13] = says(CheckIn("a", 999))
    presence = Presence(town, seen)
    presence.refresh()
    assert present(presence)["a"] == (11, 5)
    assert 999 not in {check_in.examples for check_in in seen}


@pytest.mark.parametrize(
    "answer",
    [
        says({}),
        says(CheckIn("a", 5).to_record() | {"examples": "many"}),
        says(CheckIn("a", 5).to_record() | {"examples": -1}),
        says(CheckIn("a", 5).to_record() | {"client_id": "x" * 65}),
        says(CheckIn("a", 5).to_record() | {"protocol_version": 999}),
        says(CheckIn("a", 5).to_record() | {"outbox": ["../../etc"]}),
        lambda question: Message(RecordDict(), reply_to=question),
        lambda question: Message(RecordDict({"check-in": MetricRecord({"examples": 5})}), reply_to=question),
        lambda question: Message(Error(2, "the camera fell off"), reply_to=question),
        lambda question: Message(Error(2), reply_to=question),
    ],
)
def test_a_node_that_does_not_say_who_it_is_takes_no_part_and_disturbs_nobody(town: Town, answer: Answer) -> None:
    town.nodes[11] = answer
    presence = Presence(town, Seen())
    presence.refresh()
    assert (set(presence.clients), presence.unanswered) == ({"b"}, 0)


def test_a_node_that_stays_is_asked_again_and_hears_what_became_of_its_updates(town: Town) -> None:
    heard: list[OutboxNews] = []
    town.nodes = {11: says(CheckIn("a", 5, (UPDATE,)), heard)}
    news = OutboxNews(accepted=(UPDATE,))
    presence = Presence(town, Seen(), news=lambda check_in: news if check_in.outbox else OutboxNews(), again_s=0.0)
    presence.refresh()
    town.nodes[11] = says(CheckIn("a", 8), heard)
    presence.refresh()
    assert present(presence) == {"a": (11, 8)}
    assert heard == [OutboxNews(), news]


def test_a_client_that_is_forgotten_is_there_again_when_it_answers_again(town: Town) -> None:
    presence = Presence(town, Seen())
    presence.refresh()
    answer = town.nodes[11]
    town.nodes[11] = silent
    presence.forget("a")
    presence.forget("nobody")
    presence.refresh()
    assert (set(presence.clients), presence.unanswered) == ({"b"}, 1)
    town.nodes[11] = answer
    presence.refresh()
    assert set(presence.clients) == {"a", "b"}
    assert town.asked == [11, 12, 11]


def test_a_member_that_is_revoked_while_it_is_there_leaves_at_the_next_question(town: Town) -> None:
    members = dict(MEMBERS)
    presence = Presence(town, Seen(), members.get, again_s=0.0)
    presence.refresh()
    del members[11]
    presence.refresh()
    assert set(presence.clients) == {"b"}
