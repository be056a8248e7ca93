"""Wearables whose radio sleeps between check-ins leave, come back, take part in rounds, and train nothing twice."""

from __future__ import annotations

from pathlib import Path

from real_fleet import Client, Server, expected_models, make_base, make_data, wait_for

from server.registry import utc_now

EVERY_S = 30


def test_nodes_leave_come_back_and_take_part_in_rounds(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    server = Server(tmp_path / "server", make_base(data, tmp_path / "base.safetensors"))
    with (server.folder / "mcoe-server.toml").open("a") as settings:
        settings.write(f"check_in_s = {EVERY_S}\n")
    server.start("--min-clients", 2, "--pause-s", 20, "--deadline-s", 600, "--train", "head")
    clients = [Client(tmp_path / name, data, f"00{index + 1}", name) for index, name in enumerate(("first", "second"))]
    try:
        for client in clients:
            client.enrol(server)
            client.start()
        wait_for(lambda: all(_said(client).count("checked in; again in") >= 2 for client in clients), 480, "two sleeps")
        server.wait_for_round(2, seconds=480)
        for client in clients:
            row = server.registry().client(client.name)
            assert row.last_seen and row.next_check_in
            assert 0 < (row.next_check_in - row.last_seen).total_seconds() < 2 * EVERY_S
            assert row.last_seen < utc_now()
    finally:
        for process in [*(client.process for client in clients), server.process]:
            if process is not None:
                process.end()
    for client in clients:
        assert client.trained() == sorted(set(client.trained()))
        assert "SuperNode ended" not in _said(client)  # it left by itself and was let in again
    published = server.published()
    assert [row.attempt for row in published] == [1] * len(published)
    made = [row.published_sha256 for row in published]
    assert made == expected_models(server.base, clients, tmp_path, len(published))


def _said(client: Client) -> str:
    assert client.process is not None
    return client.process.said()
