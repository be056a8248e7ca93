"""What a portion of a camera's streams covers. Times are in microseconds of the camera's clock."""

from __future__ import annotations

from client.cameras.source import Portion, Stream


def stream_times(portion: Portion) -> dict[Stream, tuple[int, int]]:
    """The first and the last time of each stream that has something; a frame's is the start of its exposure."""
    found: dict[Stream, tuple[int, int]] = {}
    if portion.frames:
        found["frames"] = (portion.frames[0].start_us, portion.frames[-1].start_us)
    events = None if portion.events is None else portion.events.numpy()
    streams: tuple[Stream, ...] = ("events", "imu", "triggers")
    for name, items in zip(streams, (events, portion.imu, portion.triggers), strict=True):
        if items is not None and len(items):
            found[name] = (int(items["timestamp"][0]), int(items["timestamp"][-1]))
    return found


def span_us(portion: Portion) -> tuple[int, int] | None:
    """From the first time in a portion to the last, or the end of the last exposure; None when it holds nothing."""
    times = stream_times(portion).values()
    if not times:
        return None
    ends = [last for _, last in times] + [frame.end_us for frame in portion.frames]
    return min(first for first, _ in times), max(ends)


def counts(portion: Portion) -> dict[Stream, int]:
    """How much of each stream a portion holds."""
    return {
        "events": 0 if portion.events is None else len(portion.events),
        "frames": len(portion.frames),
        "imu": 0 if portion.imu is None else len(portion.imu),
        "triggers": 0 if portion.triggers is None else len(portion.triggers),
    }
