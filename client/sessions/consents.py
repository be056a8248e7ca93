"""What the wearer agreed to: answers to versioned texts, each kind by itself, added to and never changed."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace

from sqlalchemy import select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import Session

from client.consent_text import ConsentText
from client.said import Said
from client.sessions.store import StoreBase
from client.sessions.tables import ConsentRow, ConsentTextRow
from client.sessions.times import SECOND_US, Moment
from mcoe_model.consent import CONSENTS, Consent
from mcoe_model.errors import ConsentMissing, DataInvalid


@dataclass(frozen=True)
class ConsentAnswer:
    """The newest answer to one kind. ``current``: to the version that is asked for now."""

    kind: str
    given: bool
    version: str
    language: str
    text_sha256: str
    utc_us: int
    zone: str
    current: bool

    @property
    def allows(self) -> bool:
        return self.given and self.current


class ConsentStore(StoreBase):
    """Consents need no key: a locked wearable can be told to stop.

    ``withdrawn``: consents that were taken back while no disk could write it down. They do not hold.
    """

    withdrawn: frozenset[str] = frozenset()

    def answer_consents(self, answers: dict[str, bool], text: ConsentText, at: Moment | None = None) -> None:
        """What the wearer answered to this text, by kind. ``at``: when, if that was before there was a store; the
        text may be another by now, and is then asked for again.

        Raises DataInvalid for an unknown kind, or a text of another version than the one that is asked for now.
        """
        if unknown := answers.keys() - set(CONSENTS):
            raise DataInvalid(f"consents are about {', '.join(CONSENTS)}, not {', '.join(sorted(unknown))}")
        if at is None and text.version != self.rules.consent_version:
            says = "consent is asked for text {version}, not {read}"
            raise DataInvalid(Said("consent.changed", says, version=self.rules.consent_version, read=text.version))
        moment = at or self._clock()
        with self._writing() as session:
            shown = {"sha256": text.sha256, "version": text.version, "language": text.language, "text": text.text}
            session.execute(insert(ConsentTextRow).values(shown).on_conflict_do_nothing())
            for kind in CONSENTS:
                if kind in answers:
                    session.add(_row(kind, answers[kind], text.sha256, moment))

    def withdraw(self, kind: str) -> None:
        """Nothing of this kind from now on. Without an answer that could be withdrawn, nothing happens."""
        moment = self._clock()
        with self._writing() as session:
            newest = _newest(session).get(kind)
            if newest is not None and newest.given:
                session.add(_row(kind, False, newest.text_sha256, moment))

    def consents(self) -> dict[str, ConsentAnswer]:
        """The newest answer of each kind that was ever answered."""
        with self._reading() as session:
            texts = {row.sha256: row for row in session.scalars(select(ConsentTextRow))}
            newest = {kind: self._answer(row, texts[row.text_sha256]) for kind, row in _newest(session).items()}
        return {kind: replace(one, given=one.given and kind not in self.withdrawn) for kind, one in newest.items()}

    def consent_history(self) -> list[ConsentAnswer]:
        """Every answer and withdrawal, oldest first."""
        with self._reading() as session:
            texts = {row.sha256: row for row in session.scalars(select(ConsentTextRow))}
            rows = session.scalars(select(ConsentRow).order_by(ConsentRow.id))
            return [self._answer(row, texts[row.text_sha256]) for row in rows]

    def consent_text(self, sha256: str) -> ConsentText | None:
        """The text that was shown: the copy to keep."""
        with self._reading() as session:
            row = session.get(ConsentTextRow, sha256)
            return None if row is None else ConsentText(row.version, row.language, row.text)

    def allowed(self, kind: str) -> bool:
        """Whether the wearer agreed to this, to the text of today, and has not withdrawn."""
        answer = self.consents().get(kind)
        return answer is not None and answer.allows

    def require(self, kind: str) -> None:
        """Raises ConsentMissing unless `allowed`."""
        if not self.allowed(kind):
            raise ConsentMissing(f"the wearer has not agreed to {kind}; ask on the page, or run: mcoe-client consent")

    def require_given(self, kind: str) -> None:
        """Raises ConsentMissing once it is withdrawn; a text that changes leaves what was recorded before."""
        answer = self.consents().get(kind)
        if answer is None or not answer.given:
            raise ConsentMissing(f"the wearer has withdrawn {kind}")

    def agreed(self) -> tuple[Consent, ...]:
        """What is allowed, as the server's record has it."""
        return tuple(
            Consent(kind, answer.version, datetime.datetime.fromtimestamp(answer.utc_us / SECOND_US, datetime.UTC))
            for kind, answer in self.consents().items()
            if answer.allows
        )

    def _answer(self, row: ConsentRow, text: ConsentTextRow) -> ConsentAnswer:
        current = text.version == self.rules.consent_version
        about = (text.version, text.language, text.sha256)
        return ConsentAnswer(row.kind, row.given, *about, row.utc_us, row.zone, current)


def _row(kind: str, given: bool, text_sha256: str, at: Moment) -> ConsentRow:
    when = {"utc_us": at.utc_us, "zone": at.zone, "clock_state": at.clock_state, "monotonic_ns": at.monotonic_ns}
    return ConsentRow(kind=kind, given=given, text_sha256=text_sha256, **when)


def _newest(session: Session) -> dict[str, ConsentRow]:
    rows = session.scalars(select(ConsentRow).order_by(ConsentRow.id))
    return {row.kind: row for row in rows}
