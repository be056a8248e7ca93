"""The device's name on the local network, so that a phone finds it without a name server (RFC 6762 and 6763)."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec

from mcoe_model.errors import McoeError, MissingExtra, for_log

#: Seconds between two looks at the machine's addresses, each of which takes half a millisecond. Wi-Fi comes up when the
#: program runs already, and a phone's hotspot is joined at any time.
LOOK_S = 3.0
_KIND = "_https._tcp.local."

log = logging.getLogger("mcoe")


class NotAnnounced(McoeError):
    """Without a network, or where another device has the name, the page is reached by its address alone."""


async def keep_announced(name: str, port: int, addresses: Callable[[], list[str]], stopping: asyncio.Event) -> None:
    """Announce ``name`` at the addresses that there are, and anew at others, until ``stopping`` is set.

    What was not possible is tried again at each look. Raises MissingExtra.
    """
    said = ""

    def say(now: str) -> None:
        nonlocal said
        if now != said:
            log.info("the page is %s", now)
        said = now

    async def pause() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), LOOK_S)

    while not stopping.is_set():
        try:
            here = addresses()
            async with announced(name, port, here):
                say(f"announced as {name} at {', '.join(here)}")
                while not stopping.is_set() and addresses() == here:
                    await pause()
        except MissingExtra:
            raise
        except Exception as fault:  # whatever becomes of the network, the wearable goes on
            say(f"not announced: {fault if isinstance(fault, NotAnnounced) else for_log(fault)}")
            await pause()


@asynccontextmanager
async def announced(name: str, port: int, addresses: list[str]) -> AsyncIterator[None]:
    """Announce ``name`` (``mcoe-XXXX.local``) at these addresses meanwhile. Raises NotAnnounced, MissingExtra."""
    if not addresses:
        raise NotAnnounced("it has no address that others reach")
    try:
        from zeroconf import IPVersion, NonUniqueNameException, ServiceInfo
        from zeroconf.asyncio import AsyncZeroconf
    except ImportError as fault:
        raise _missing() from fault
    packed = [ipaddress.ip_address(address).packed for address in addresses]
    label = name.removesuffix(".local")
    info = ServiceInfo(_KIND, f"{label}.{_KIND}", port=port, addresses=packed, server=f"{name}.")
    try:
        zeroconf = AsyncZeroconf(interfaces=addresses, ip_version=IPVersion.V4Only)
    except OSError as fault:
        raise NotAnnounced(f"the network does not take it ({fault.strerror})") from fault
    try:
        try:
            await zeroconf.async_register_service(info)
        except NonUniqueNameException as fault:
            raise NotAnnounced("another device has its name") from fault
        yield
    finally:
        await zeroconf.async_close()


def own_addresses(host: str) -> list[str]:
    """The IPv4 addresses under which others reach a page that listens at ``host``. Raises MissingExtra."""
    if host != "0.0.0.0":
        return [host]
    try:
        import ifaddr
    except ImportError as fault:
        raise _missing() from fault
    found = [str(one.ip) for adapter in ifaddr.get_adapters() for one in adapter.ips if one.is_IPv4]
    return [address for address in found if not ipaddress.ip_address(address).is_loopback]


def reached_at(host: str) -> list[str]:
    """Those of `own_addresses` under which another machine reaches the page, each once. Raises MissingExtra."""
    return sorted({address for address in own_addresses(host) if not ipaddress.ip_address(address).is_loopback})


def require_announcer(host: str) -> None:
    """Say what is missing to announce a page at ``host``, before it is served. Raises MissingExtra."""
    if not ipaddress.ip_address(host).is_loopback and not (find_spec("zeroconf") and find_spec("ifaddr")):
        raise _missing()


def _missing() -> MissingExtra:
    return MissingExtra("the page is announced by zeroconf; install it with: pip install 'mcoe[capture]'")
