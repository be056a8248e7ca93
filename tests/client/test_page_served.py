"""The page as a process serves it: over TLS with its own certificate, announced by name, ended in time."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import zeroconf.asyncio
from standing_wearable import StandingWearable
from zeroconf import IPVersion
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from client.page.announcement import announced, own_addresses, reached_at
from client.page.certificate import device_certificate
from client.page.pairing import Pairing
from client.page.serve import serve_page
from client.page.settings import PageSettings
from mcoe_model.errors import MissingExtra, PortInUse, SettingsError

KEY = {"Idempotency-Key": "c" * 32}


def test_the_page_is_served_over_tls_with_the_devices_certificate(tmp_path: Path) -> None:
    async def phone(port: int) -> None:
        trust = ssl.create_default_context(cafile=device_certificate(tmp_path).certificate)
        address = f"https://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=address, verify=trust, trust_env=False, timeout=120) as client:
            assert (await client.get("/health")).json() == {"status": "ok"}
            assert (await client.get("/", headers={"Host": f"127.0.0.2:{port}"})).status_code == 400
            await client.post("/api/pair", json={"code": Pairing(tmp_path).code()}, headers=KEY)
            async with client.stream("GET", "/events") as events:
                seen = ""
                async for line in events.aiter_lines():
                    seen += line
                    if line.startswith("data:") and "refusal" in line:
                        break
            assert '"stage": "new"' in seen or '"stage":"new"' in seen
            assert "Not recording" in seen
        with pytest.raises(httpx.HTTPError):
            async with httpx.AsyncClient(trust_env=False) as client:
                await client.get(f"http://127.0.0.1:{port}/health")

    async def serve() -> None:
        stopping, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
        settings = PageSettings(tmp_path, host="127.0.0.1", port=0)
        serving = asyncio.ensure_future(serve_page(StandingWearable(), settings, stopping, ready.set_result))
        try:
            await phone(await ready)
        finally:
            stopping.set()
            await asyncio.wait_for(serving, 120)

    asyncio.run(serve())


def test_an_open_stream_of_events_does_not_hold_the_page_up(tmp_path: Path) -> None:
    async def serve() -> None:
        stopping, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
        settings = PageSettings(tmp_path, host="127.0.0.1", port=0, tls=False)
        serving = asyncio.ensure_future(serve_page(StandingWearable(), settings, stopping, ready.set_result))
        address = f"http://127.0.0.1:{await ready}"
        async with httpx.AsyncClient(base_url=address, trust_env=False, timeout=120) as client:
            paired = await client.post("/api/pair", json={"code": Pairing(tmp_path).code()}, headers=KEY)
            assert "Secure" not in paired.headers["set-cookie"]
            async with client.stream("GET", "/events") as events:
                lines = events.aiter_lines()
                await anext(lines)
                stopping.set()
                async for _ in lines:
                    pass
        await asyncio.wait_for(serving, 120)

    asyncio.run(serve())


def test_a_phone_that_is_unpaired_hears_no_more(tmp_path: Path) -> None:
    async def serve() -> None:
        stopping, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
        wearable, settings = StandingWearable(), PageSettings(tmp_path, host="127.0.0.1", port=0, tls=False)
        serving = asyncio.ensure_future(serve_page(wearable, settings, stopping, ready.set_result))
        address = f"http://127.0.0.1:{await ready}"
        try:
            async with httpx.AsyncClient(base_url=address, trust_env=False, timeout=120) as client:
                await client.post("/api/pair", json={"code": Pairing(tmp_path).code()}, headers=KEY)
                async with client.stream("GET", "/events") as events:
                    lines = events.aiter_lines()
                    async for line in lines:
                        if "refusal" in line:
                            break
                    Pairing(tmp_path).unpair()
                    wearable.recognise()
                    async for line in lines:
                        assert "Happiness" not in line
        finally:
            stopping.set()
            await asyncio.wait_for(serving, 120)

    asyncio.run(serve())


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        settings = PageSettings(tmp_path, host="127.0.0.1", port=taken.getsockname()[1])
        with pytest.raises(PortInUse, match="choose another for the page"):
            asyncio.run(serve_page(StandingWearable(), settings, asyncio.Event()))
    elsewhere = PageSettings(tmp_path, host="192.0.2.1", port=0)
    with pytest.raises(SettingsError, match=r"cannot listen on 192\.0\.2\.1"):
        asyncio.run(serve_page(StandingWearable(), elsewhere, asyncio.Event()))


def test_the_name_is_announced_on_the_network() -> None:
    name = f"mcoe-test-{os.getpid()}"  # whoever else tests on this machine announces another

    async def look() -> AsyncServiceInfo | None:
        async with announced(f"{name}.local", 8443, ["127.0.0.1"]):
            phone = AsyncZeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only)
            try:
                return await phone.async_get_service_info("_https._tcp.local.", f"{name}._https._tcp.local.", 120_000)
            finally:
                await phone.async_close()

    found = asyncio.run(look())
    assert found is not None
    assert (found.server, found.port, found.parsed_addresses()) == (f"{name}.local.", 8443, ["127.0.0.1"])


def test_the_name_follows_the_machine_to_other_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Wi-Fi that comes up after the start, an address more, a network that is not ready, and none at all."""
    monkeypatch.setattr("client.page.announcement.LOOK_S", 0.1)
    caplog.set_level(logging.INFO, "mcoe")
    name = device_certificate(tmp_path).name
    here, fails = list[str](), [OSError(errno.ENODEV, "No such device")] * 3

    class NotReadyAtFirst(AsyncZeroconf):
        def __init__(self, interfaces: list[str], ip_version: IPVersion) -> None:
            if len(interfaces) == 2 and fails:
                raise fails.pop()
            super().__init__(interfaces=interfaces, ip_version=ip_version)

    monkeypatch.setattr(zeroconf.asyncio, "AsyncZeroconf", NotReadyAtFirst)

    def said() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "mcoe"]

    async def until_said(last: str) -> None:
        while not (lines := said()) or last not in lines[-1]:
            await asyncio.sleep(0.05)

    async def until_found(addresses: list[str]) -> None:
        """As a phone that looks for it now; what it heard before is forgotten."""
        while True:
            phone = AsyncZeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only)
            asked = f"{name.removesuffix('.local')}._https._tcp.local."
            try:
                found = await phone.async_get_service_info("_https._tcp.local.", asked, 3000)
            finally:
                await phone.async_close()
            if found is not None and sorted(found.parsed_addresses()) == addresses:
                return

    async def serve() -> None:
        stopping, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
        settings = PageSettings(tmp_path, host="127.0.0.1", port=0)
        serving = asyncio.ensure_future(
            serve_page(StandingWearable(), settings, stopping, ready.set_result, lambda host: sorted(here))
        )
        try:
            async with asyncio.timeout(120):
                await ready
                await until_said("no address that others reach")
                here.append("127.0.0.1")
                await until_found(["127.0.0.1"])
                here.append("127.0.0.2")
                await until_found(["127.0.0.1", "127.0.0.2"])
                here.clear()
                await until_said("no address that others reach")
        finally:
            stopping.set()
            await asyncio.wait_for(serving, 120)

    asyncio.run(serve())
    none = "the page is not announced: it has no address that others reach"
    assert said() == [
        none,
        f"the page is announced as {name} at 127.0.0.1",
        "the page is not announced: the network does not take it (No such device)",
        f"the page is announced as {name} at 127.0.0.1, 127.0.0.2",
        none,
    ]


def test_a_page_on_every_address_names_those_that_others_reach() -> None:
    assert own_addresses("127.0.0.1") == ["127.0.0.1"]
    assert not any(address.startswith("127.") for address in own_addresses("0.0.0.0"))
    assert reached_at("127.0.0.1") == [] and reached_at("192.0.2.1") == ["192.0.2.1"]


def test_without_what_announces_it_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ifaddr", None)
    with pytest.raises(MissingExtra, match=r"mcoe\[capture\]"):
        own_addresses("0.0.0.0")
    assert own_addresses("127.0.0.1") == ["127.0.0.1"]
    monkeypatch.setitem(sys.modules, "zeroconf", None)

    async def announce() -> None:
        async with announced("mcoe-abcd.local", 1, ["127.0.0.1"]):
            pass

    with pytest.raises(MissingExtra, match=r"mcoe\[capture\]"):
        asyncio.run(announce())


def test_what_is_missing_to_announce_it_is_said_before_anything_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not at the first network that comes up, hours later."""
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    served: list[int] = []
    settings, stopping = PageSettings(tmp_path, host="0.0.0.0", port=0), asyncio.Event()
    stopping.set()
    with pytest.raises(MissingExtra, match=r"mcoe\[capture\]"):
        asyncio.run(serve_page(StandingWearable(), settings, stopping, served.append, lambda host: []))
    assert served == []
