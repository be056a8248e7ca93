"""Why an operator should look at a wearable, by what it last said of its health."""

from __future__ import annotations

from collections.abc import Iterable

from mcoe_model.health import Health
from server.registry.clients import ClientRow
from server.registry.tables import ENROLLED

#: Below so many free GB a disk is nearly full.
LITTLE_GB = 2
#: From so many degrees Celsius on a wearable is hot: it learns nothing then.
HOT = 75
#: Below so many per cent of its charge a battery is low.
LITTLE_CHARGE = 20
#: Days that a recording may wait to be labelled and learned. After 14 it is deleted (the wearable's default).
LONG_DAYS = 7


#: What there is to look at, the most urgent first.
REASONS = ("error", "disk", "heat", "camera", "clock", "battery", "throttled", "waiting")


def attention(health: Health, today: int) -> tuple[str, ...]:
    """The reasons in words, the most urgent first; ``today`` in days since 1970. What is unknown is no reason."""
    return tuple(why for holds, why in _looked_at(health, today) if holds)


def reasons(health: Health, today: int) -> tuple[str, ...]:
    """The same by their names in `REASONS`."""
    return tuple(name for name, (holds, _) in zip(REASONS, _looked_at(health, today), strict=True) if holds)


def needs(clients: Iterable[ClientRow], today: int) -> dict[str, tuple[str, ...]]:
    """What each enrolled client that has said how it is needs, by its id."""
    return {one.id: attention(one.health, today) for one in clients if one.health and one.state == ENROLLED}


def _looked_at(health: Health, today: int) -> tuple[tuple[bool, str], ...]:
    waits = today - health.oldest_day if health.oldest_day >= 0 else 0
    return (
        (health.error > 0, f"a part of it failed with code {health.error}"),
        (0 <= health.free_gb < LITTLE_GB, f"disk nearly full: {health.free_gb} GB free"),
        (health.celsius >= HOT, f"hot: {health.celsius} degrees"),
        (health.camera_seen == 0, "camera not seen"),
        (health.clock_set == 0, "clock not set"),
        (0 <= health.battery_percent < LITTLE_CHARGE, f"battery low: {health.battery_percent} %"),
        (health.throttled == 1, "slowed down by heat"),
        (waits >= LONG_DAYS, f"nothing labelled or learned of a recording for {waits} days"),
    )
