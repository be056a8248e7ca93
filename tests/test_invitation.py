"""An invitation is one line that can be copied, and nothing else is taken for one."""

from __future__ import annotations

import pytest

from mcoe_model.errors import DataInvalid
from mcoe_model.invitation import Invitation

TOKEN = "A-z_0" * 6
LINE = f"mcoe-invitation:fleet.example.org:8443/{'0a' * 32}/{TOKEN}/w1"


@pytest.mark.parametrize("address", ["fleet.example.org:8443", "10.0.0.5:1", "[::1]:65535", "localhost:8443"])
def test_an_invitation_survives_being_written_and_read(address: str) -> None:
    invitation = Invitation(address, "0a" * 32, TOKEN, "w1")
    assert Invitation.from_line(invitation.to_line()) == invitation
    assert Invitation.from_line(f"  {invitation.to_line()}\n") == invitation
    assert len(invitation.to_line().split()) == 1


@pytest.mark.parametrize(
    "line",
    [
        "",
        "mcoe-invitation:",
        LINE.removeprefix("mcoe-invitation:"),
        LINE.replace(":8443", ""),
        LINE.replace(":8443", ":"),
        LINE.replace(":8443", ":0"),
        LINE.replace(":8443", ":99999"),
        LINE.replace("0a" * 32, "0a" * 31),
        LINE.replace("0a" * 32, "0A" * 32),
        LINE.replace("fleet", "user:secret@fleet"),
        LINE.replace("fleet.example.org", "fleet.example.org/path"),
        LINE.replace("fleet.example.org", ""),
        LINE.replace(TOKEN, "short"),
        LINE.replace(TOKEN, TOKEN * 3),
        LINE.replace("/w1", "/"),
        LINE.replace("/w1", "/../w1"),
        LINE.replace("/w1", "/ж"),
        LINE.replace("/w1", "/w" + "1" * 64),
        LINE + "/more",
        LINE + "\n" + LINE,
        LINE[:40] + "\n" + LINE[40:],
    ],
)
def test_anything_else_is_refused_in_one_line_that_does_not_repeat_it(line: str) -> None:
    with pytest.raises(DataInvalid) as raised:
        Invitation.from_line(line)
    assert len(str(raised.value).splitlines()) == 1 and TOKEN not in str(raised.value)


@pytest.mark.parametrize(
    ("address", "client_id"),
    [("fleet.example.org", "w1"), ("fleet:0", "w1"), ("fleet:8443", "my watch"), ("fleet:8443", ""), ("f/x:1", "w1")],
)
def test_an_invitation_that_could_not_be_read_again_is_not_made(address: str, client_id: str) -> None:
    with pytest.raises(DataInvalid, match="HOST:PORT"):
        Invitation(address, "0a" * 32, TOKEN, client_id)
