"""Who is there: nodes that come and go, nodes that lie about their name, and clients that are asked again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from mcoe_model.health import Health
from mcoe_model.protocol import CheckIn, News, Offer
from server.check_ins import CheckIns
from server.presence import Presence
from server.superlink.messages import SERVER_NODE_ID, Run, assign_message_id, empty_run, identify_process

UPDATE = "0123456789abcdef" * 2
Answer = Callable[[Message], Message | None]


class Town(Grid):
    """A grid in memory whose nodes come, go and answer as the test says; None is no answer yet.

    What raises NotImplementedError is of Flower's protocol alone: presence must not call it, and fails if it does.
    """

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


def says(check_in: CheckIn | dict[str, Any], heard: list[News] | None = None) -> Answer:
    """A node that answers every question so."""
    record = check_in.to_record() if isinstance(check_in, CheckIn) else check_in

    def answer(question: Message) -> Message:
        if heard is not None:
            heard.append(News.from_record(dict(question.content["news"])))  # type: ignore[arg-type]
        return Message(RecordDict({"check-in": ConfigRecord(record)}), reply_to=question)  # type: ignore[arg-type]

    return answer


def silent(question: Message) -> None:
    """A node that has not answered yet."""


class Seen(list[CheckIn]):
    """What the registry was told."""

    def __call__(self, check_in: CheckIn, news: News) -> bool:
        self.append(check_in)
        return True


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
    lied = list[str]()
    presence = Presence(town, seen, (MEMBERS | {10: "liar"}).get, lied=lied.append)
    presence.refresh()
    assert lied == ["liar"]
    assert present(presence) == {"a": (11, 5), "b": (12, 7)}
    assert {check_in.client_id: check_in.examples for check_in in seen} == {"a": 5, "b": 7}


def test_a_node_that_is_no_member_is_not_even_asked(town: Town) -> None:
    town.nodes[13] = says(CheckIn("c", 9))
    presence = Presence(town, Seen(), MEMBERS.get)
    presence.refresh()
    assert (town.asked, set(presence.clients)) == ([11, 12], {"a", "b"})


def test_a_member_that_left_while_it_answered_is_not_there(town: Town) -> None:
    presence = Presence(town, lambda check_in, news: check_in.client_id != "a", MEMBERS.get)
    presence.refresh()
    assert (set(presence.clients), presence.unanswered) == ({"b"}, 0)


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
    heard: list[News] = []
    town.nodes = {11: says(CheckIn("a", 5, (UPDATE,)), heard)}
    news = News(accepted=(UPDATE,))
    presence = Presence(town, Seen(), news=lambda check_in: news if check_in.outbox else News(), again_s=0.0)
    presence.refresh()
    town.nodes[11] = says(CheckIn("a", 8), heard)
    presence.refresh()
    assert present(presence) == {"a": (11, 8)}
    assert heard == [News(), replace(news, standing="ok")]


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


def test_a_member_hears_with_the_first_question_which_model_it_should_run(town: Town) -> None:
    offered: list[Offer | None] = []

    def answers(client: str) -> Answer:
        def answer(question: Message) -> Message | None:
            there = "offer" in question.content
            offered.append(Offer.from_record(dict(question.content["offer"])) if there else None)  # type: ignore[arg-type]
            return says(CheckIn(client, 5))(question)

        return answer

    town.nodes = {11: answers("a"), 12: answers("b")}
    offers = {"a": Offer("a" * 64, canary=True), "b": None}
    Presence(town, Seen(), MEMBERS.get, offer=offers.get).refresh()
    assert offered == [offers["a"], None]
    offered.clear()
    unknown = Presence(town, Seen(), offer=offers.get, again_s=0.0)  # a node that is who it says is known once it said
    unknown.refresh()
    unknown.refresh()
    assert offered == [None, None, offers["a"], None]


def test_the_answer_to_a_question_that_took_the_place_of_a_lost_one_is_heard(town: Town) -> None:
    town.nodes = {11: silent}
    presence = Presence(town, Seen(), again_s=0.0, lost_s=0.0)
    presence.refresh()
    presence.refresh()
    assert (town.asked, presence.unanswered) == ([11, 11], 1)
    town.nodes[11] = says(CheckIn("a", 5))
    presence.lost_s = presence.again_s = math.inf
    presence.refresh()
    assert (set(presence.clients), presence.unanswered) == ({"a"}, 0)


def test_a_client_is_asked_again_before_it_is_due_but_never_twice_at_a_time(town: Town) -> None:
    presence = Presence(town, Seen(), lost_s=900.0)
    presence.refresh()
    town.nodes[11] = silent
    for _ in range(3):
        presence.ask_again("a")
        presence.refresh()
    assert town.asked == [11, 12, 11]
    assert set(presence.clients) == {"a", "b"}  # it is there meanwhile


def test_a_client_whose_version_is_too_old_hears_it_at_once_and_only_once(town: Town) -> None:
    heard: list[News] = []
    town.nodes = {11: says(replace(CheckIn("a", 5), client_version="0.9"), heard)}
    presence = Presence(town, Seen(), MEMBERS.get, check_ins=CheckIns(least="1.0"))
    for _ in range(4):
        presence.refresh()
    assert [news.standing for news in heard] == ["", "too-old"]
    assert set(presence.clients) == {"a"} and not presence.may_train("a")


def test_every_question_says_when_to_come_again(town: Town) -> None:
    heard: list[News] = []
    town.nodes = {11: says(CheckIn("a", 5), heard)}
    seen: list[News] = []
    check_ins = CheckIns(every_s=600.0)
    Presence(town, lambda check_in, news: not seen.append(news), MEMBERS.get, check_ins=check_ins).refresh()
    assert 280 < heard[0].next_check_in_s < 920
    assert seen == [replace(heard[0], standing="ok")]


def test_a_member_that_speaks_another_protocol_is_known_as_such(town: Town) -> None:
    others: list[tuple[str, int]] = []
    town.nodes[11] = says({"protocol_version": 99, "who": "knows"})
    town.nodes[13] = says({"protocol_version": 99})  # nobody's
    known = Presence(town, Seen(), MEMBERS.get, speaks_other=lambda *said: others.append(said))
    known.refresh()
    assert (others, set(known.clients)) == ([("a", 99)], {"b"})


def test_a_client_that_leaves_between_check_ins_hears_at_once_what_became_of_what_it_keeps(town: Town) -> None:
    heard: list[News] = []
    town.nodes = {11: says(CheckIn("a", 5, (UPDATE,)), heard)}
    news = News(accepted=(UPDATE,))
    check_ins = CheckIns(every_s=600.0)
    presence = Presence(town, Seen(), MEMBERS.get, news=lambda check_in: news, check_ins=check_ins)
    for _ in range(4):
        presence.refresh()
    assert [said.accepted for said in heard] == [(), (UPDATE,)]
    presence.acknowledge("a")
    presence.refresh()
    assert len(heard) == 3


HEALTH = Health(free_gb=7, camera_seen=0)


def says_how_it_is(client: str, health: Any) -> Answer:
    """A node that answers every question with a check-in and with this record beside it."""

    def answer(question: Message) -> Message:
        content = RecordDict({"check-in": ConfigRecord(CheckIn(client, 5).to_record())})  # type: ignore[arg-type]
        content["health"] = health
        return Message(content, reply_to=question)

    return answer


def test_what_clients_say_of_their_health_is_noted(town: Town) -> None:
    """Of a and b nothing is known: they are of a version that does not say it."""
    noted: list[tuple[str, Health]] = []
    town.nodes[13] = says_how_it_is("c", ConfigRecord(HEALTH.to_record()))  # type: ignore[arg-type]
    presence = Presence(town, Seen(), note_health=lambda *said: noted.append(said))
    presence.refresh()
    assert noted == [("c", HEALTH)]
    assert set(present(presence)) == {"a", "b", "c"}


@pytest.mark.parametrize(
    "health",
    [
        ConfigRecord(HEALTH.to_record() | {"humour": 3}),  # type: ignore[arg-type]  # as a newer version may say
        ConfigRecord(HEALTH.to_record() | {"celsius": 10_000}),  # type: ignore[arg-type]
        ConfigRecord(HEALTH.to_record() | {"version": "sad"}),  # type: ignore[arg-type]
        ConfigRecord({}),
        MetricRecord({"free_gb": 1.5}),
    ],
)
def test_a_health_that_cannot_be_costs_the_client_nothing_else(town: Town, health: Any) -> None:
    noted: list[tuple[str, Health]] = []
    seen = Seen()
    town.nodes[11] = says_how_it_is("a", health)
    presence = Presence(town, seen, note_health=lambda *said: noted.append(said))
    presence.refresh()
    assert present(presence) == {"a": (11, 5), "b": (12, 7)}
    assert [said.client_id for said in seen] == ["a", "b"] and noted == []


def test_nothing_is_noted_of_a_client_that_has_left_or_is_another(town: Town) -> None:
    noted: list[tuple[str, Health]] = []
    town.nodes = {
        11: says_how_it_is("a", ConfigRecord(HEALTH.to_record())),  # type: ignore[arg-type]
        12: says_how_it_is("a", ConfigRecord(HEALTH.to_record())),  # type: ignore[arg-type]
    }
    presence = Presence(town, lambda check_in, news: False, MEMBERS.get, note_health=lambda *said: noted.append(said))
    presence.refresh()
    assert noted == []
