"""The device's name on the local network, so that a phone finds it without a name server (RFC 6762 and 6763)."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mcoe_model.errors import MissingExtra

_KIND = "_https._tcp.local."


@asynccontextmanager
async def announced(name: str, port: int, addresses: list[str]) -> AsyncIterator[bool]:
    """Announce ``name`` (``mcoe-XXXX.local``) at these addresses meanwhile; whether that was possible.

    Without a network, or where another device has the name, the page is still reached by its address.
    Raises MissingExtra.
    """
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
    except OSError:
        yield False
        return
    try:
        await zeroconf.async_register_service(info)
        yield True
    except (OSError, NonUniqueNameException):
        yield False
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


def _missing() -> MissingExtra:
    return MissingExtra("the page is announced by zeroconf; install it with: pip install 'mcoe[capture]'")
