"""What a reader of data has to be (`mcoe_model.data.reader.DataReader`), tried on the first few of its clips."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from mcoe_model.data.reader import ClipRecord, DataReader, RawEvents, RecordedClip, Unusable, check_clip, checked
from simulations.conform.properties import Fresh, Properties, expect

#: Clips that are opened.
_OPENED = 8


def _listed(fresh: Fresh) -> None:
    reader: DataReader = fresh()
    expect(isinstance(reader.place, str) and bool(reader.place), "place must say where the data are, as a text")
    checked(reader.index(), reader.place)


def _same_list(fresh: Fresh) -> None:
    reader: DataReader = fresh()
    first, again, other = reader.index(), reader.index(), fresh().index()
    expect(first.records == again.records == other.records, "two readings listed other clips, or in another order")
    expect(first.fingerprint == again.fingerprint == other.fingerprint, "the fingerprint of the same files differs")
    expect(isinstance(first.fingerprint, str) and bool(first.fingerprint), "the fingerprint must be a text")


def _several_people(fresh: Fresh) -> None:
    people = {record.subject for record in fresh().index().records}
    expect(len(people) >= 5, f"splits by subject need 5 subjects at least, these data have {len(people)}")


def _opened(fresh: Fresh) -> None:
    opened = _clips(fresh())
    expect(any(clip is not None for _, clip in opened), f"none of the first {len(opened)} clips could be opened")
    for record, clip in opened:
        if clip is None:
            continue
        check_clip(clip)
        known = (0, len(clip.frames))
        expect(record.n_frames in known, f"{record.name}: listed with {record.n_frames} frames, has {len(clip.frames)}")


def _same_clips(fresh: Fresh) -> None:
    reader: DataReader = fresh()
    first = [(record.name, _bits(clip)) for record, clip in _clips(reader)]
    records = reader.index().records[:_OPENED]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda record: (record.name, _bits(_clip(reader, record))), reversed(records)))
    expect(first == again[::-1], "clips that were opened again, in other threads and another order, had other bits")


def _unknown(fresh: Fresh) -> None:
    reader: DataReader = fresh()
    record = replace(reader.index().records[0], emotion="neutral", lighting="normal")
    _clip(reader, record)  # which clip it is its name says alone


def _clips(reader: DataReader) -> list[tuple[ClipRecord, RecordedClip | None]]:
    return [(record, _clip(reader, record)) for record in reader.index().records[:_OPENED]]


def _clip(reader: DataReader, record: ClipRecord) -> RecordedClip | None:
    """A clip, or None for one that is torn."""
    try:
        return reader.clip(record)
    except Unusable:
        return None


def _bits(clip: RecordedClip | None) -> tuple[bytes, ...]:
    if clip is None:
        return ()
    raw = clip.events
    events = [raw.events, raw.edges_us] if isinstance(raw, RawEvents) else raw
    return tuple(array.tobytes() for array in (*clip.frames, *events))


PROPERTIES: Properties = {
    "lists clips whose names, emotions and lightings are sound": _listed,
    "lists the same clips with the same fingerprint every time": _same_list,
    "has five subjects at least": _several_people,
    "opens clips whose frames and events fit together": _opened,
    "opens the same bits in any order and in threads": _same_clips,
    "finds a clip by its name alone": _unknown,
}
