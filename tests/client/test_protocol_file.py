"""Protocol files: what they say, and everything that is wrong with one, at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from client.protocol_file import Stimulus, read_protocol, run_protocol
from client.wearable import Wearable
from mcoe_model.errors import SettingsError

HEAD = "onset_s,duration_s,stimulus,label\n"


def test_stimuli_are_read_in_their_order() -> None:
    found = read_protocol(HEAD + "2.0,5.0,clip-017.mp4,happiness\n9,0.5,grey,\n10,30,two,other\n")
    assert found == (
        Stimulus(2.0, 5.0, "clip-017.mp4", "happiness"),
        Stimulus(9.0, 0.5, "grey", None),
        Stimulus(10.0, 30.0, "two", "other"),
    )


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("soon,5,a,happiness", "numbers of seconds"),
        ("1,5", "numbers of seconds|no name"),
        ("-1,5,a,happiness", "between 0 s and a day"),
        ("nan,5,a,happiness", "between 0 s and a day"),
        ("1,nan,a,happiness", "from 0.5 to 30 s"),
        ("1,0.4,a,happiness", "from 0.5 to 30 s"),
        ("1,31,a,happiness", "from 0.5 to 30 s"),
        ("1,5,,happiness", "no name"),
        ("1,5,a,joy", "one of angry"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(line: str, fault: str) -> None:
    with pytest.raises(SettingsError, match=f"line 2: .*({fault})"):
        read_protocol(HEAD + line + "\n")


def test_all_faults_are_named_together() -> None:
    with pytest.raises(SettingsError) as raised:
        read_protocol(HEAD + "0,5,a,joy\n4,5,b,\n20,99,c,\n")
    assert [fault.split(":")[0] for fault in raised.value.faults] == ["line 2", "line 3", "line 4"]
    assert "before the one above" in raised.value.faults[1]


@pytest.mark.parametrize("text", ["", HEAD, "onset,duration\n1,2\n"])
def test_a_file_without_its_head_or_without_stimuli_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        read_protocol(text)


class LateWearable:
    """Records and labels nothing, and takes its time to mark what is shown."""

    def __init__(self, late_us: list[int]) -> None:
        self.late_us = late_us
        self.runs = False
        self.known: Sequence[tuple[int, int, str]] = ()

    async def kept(self, do: object) -> None:
        pass

    async def start_recording(self, driven: bool) -> str:
        self.runs = True
        return "s"

    async def stop_recording(self) -> None:
        self.runs = False

    def recording(self) -> SimpleNamespace | None:
        return SimpleNamespace(session="s") if self.runs else None

    async def marker(self, name: str, source: str) -> int:
        return int(name) * 600_000 + self.late_us.pop(0)

    async def label_known(self, session: str, known: Sequence[tuple[int, int, str]]) -> None:
        self.known = known


def test_what_follows_at_once_shares_no_moment_with_what_began_late() -> None:
    """Two labels of one moment would contradict each other; but no span is shorter than one may be."""
    said = read_protocol(HEAD + "0,0.6,0,fear\n0.6,0.6,1,angry\n1.2,0.6,2,fear\n1.8,0.6,3,sadness\n")
    wearable = LateWearable([50_000, 0, 400_000, 0])
    asyncio.run(run_protocol(cast(Wearable, wearable), said))
    spans = [(start, end) for start, end, _ in wearable.known]
    assert spans == [(50_000, 600_000), (600_000, 1_200_000), (1_600_000, 2_100_000), (1_800_000, 2_400_000)]
