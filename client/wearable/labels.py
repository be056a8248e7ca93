"""What the wearer says of what was recorded: spans, labels, questions that wait, and the history of it all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from client.page import wearable_protocol as page
from client.sessions import Label, Store
from client.sessions.values import Span
from client.wearable.recordings import RecordingWearable
from client.wearable.views import session_view, span_view, utc


class LabellingWearable(RecordingWearable):
    """Labels, in times that count from their session's start."""

    async def add_span(self, session: str, start_us: int, end_us: int, once: str = "") -> int:
        """A further part of a session; its id. Raises DataMissing, DataInvalid."""

        def add(store: Store) -> int:
            start = store.session(session).starts_us or 0
            bounds = start + start_us, start + end_us
            return store.add_span(session, *bounds, predicted=self._predicted(*bounds), once=once).id

        return await self.kept(add)

    async def label(self, span: int, label: str, intensity: int | None, once: str = "") -> page.Span:
        """A new version of what the wearer says of a span. Raises DataMissing, DataInvalid."""
        said = Label(label, intensity)
        return await self._changed(lambda store: store.label(span, said, once=once))

    async def undo(self, span: int, once: str = "") -> page.Span:
        """Back to what the span was called before."""
        return await self._changed(lambda store: store.undo(span, once=once))

    async def trim(self, span: int, start_us: int, end_us: int, once: str = "") -> page.Span:
        """Other bounds within the session. Raises DataMissing, DataInvalid."""

        def change(store: Store) -> Span:
            start = store.session(store.span(span).session).starts_us or 0
            return store.trim(span, start + start_us, start + end_us, once=once)

        return await self._changed(change)

    async def discard_span(self, span: int) -> None:
        """Delete a part of a session with all that was said of it; the recording stays. Raises DataMissing."""
        await self.kept(lambda store: store.discard_span(span))

    async def label_known(self, session: str, spans: Sequence[tuple[int, int, str]]) -> None:
        """Spans of a session whose label the study knows: start, end (camera's microseconds) and what they are called.

        Those that the session does not hold to their end are left out.
        """

        def add(store: Store) -> None:
            ends_us = store.session(session).ends_us or 0
            for start, end, label in spans:
                if end <= ends_us:
                    span = store.add_span(session, start, end, predicted=self._predicted(start, end))
                    store.label(span.id, Label(label), source="protocol")

        await self.kept(add)

    async def history(self) -> list[page.Session]:
        """All sessions, newest first."""

        def show(store: Store) -> list[page.Session]:
            spans: dict[str, list[Span]] = {}
            for span in store.spans():
                spans.setdefault(span.session, []).append(span)
            return [session_view(found, spans.get(found.id, [])) for found in store.sessions()]

        return await self.kept(show)

    async def session(self, session: str) -> page.Session:
        """Raises DataMissing."""
        return await self.kept(lambda store: session_view(store.session(session), store.spans(session)))

    async def keep_more(self, session: str) -> None:
        """Keep its pictures 14 days longer. Raises DataMissing."""
        await self.kept(lambda store: store.keep_more(session))

    async def prompts(self) -> list[page.Prompt]:
        """The questions that wait, oldest first; they count as shown."""

        def show(store: Store) -> list[page.Prompt]:
            return [
                page.Prompt(one.id, one.session, one.span, utc(one.asked_us), utc(one.expires_us))
                for one in store.show_prompts()
            ]

        return await self.kept(show)

    async def snooze(self, prompt: int) -> None:
        """Ask again later. Raises DataMissing."""
        await self.kept(lambda store: store.snooze(prompt))

    async def _changed(self, change: Callable[[Store], Span]) -> page.Span:
        def do(store: Store) -> page.Span:
            span = change(store)
            return span_view(span, store.session(span.session))

        return await self.kept(do)
