"""What every part of a wearer's store shares: the engine, the folder, the key, the clock, and transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from client.keys import DeviceKey
from client.session_rules import StoreRules
from client.sessions.columns import lock_columns, unlock_columns
from client.sessions.database import open_database
from client.sessions.tables import SessionRow
from client.sessions.times import Moment, now
from mcoe_model.errors import DataMissing, Locked


class StoreBase:
    """One wearer's store: a database, and a folder of sealed recordings. One process writes; others may read.

    Without ``key`` the store is locked: consents can be read, given and withdrawn and recordings be deleted, but
    nothing can be recorded, labelled or shown.
    """

    def __init__(
        self,
        database: Path,
        recordings: Path,
        rules: StoreRules,
        key: DeviceKey | None = None,
        clock: Callable[[], Moment] = now,
        *,
        look: bool = False,
    ) -> None:
        """With ``look`` only to be read from. Raises as `open_database` does."""
        self.engine: Engine = open_database(database, look)
        self.rules = rules
        self._database = database
        self._recordings = recordings
        self._clock = clock
        self._key: DeviceKey | None = None
        if key is not None:
            self.unlock(key)

    @property
    def locked(self) -> bool:
        """Whether the key is missing."""
        return self._key is None

    def unlock(self, key: DeviceKey) -> None:
        """Use this key from now on."""
        self._key = key
        unlock_columns(self.engine, key)

    def lock(self) -> None:
        """Forget the key."""
        self._key = None
        lock_columns(self.engine)

    def close(self) -> None:
        """Close the database and forget the key."""
        self.lock()
        self.engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        """One state of the database for everything that is read."""
        with Session(self.engine) as session:
            session.connection().exec_driver_sql("BEGIN")
            yield session

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        """One transaction. From its first read on nobody else writes, so that what it read stays true."""
        with Session(self.engine) as session, session.begin():
            session.connection().exec_driver_sql("BEGIN IMMEDIATE")
            yield session

    def _unlocked(self) -> DeviceKey:
        if self._key is None:
            raise Locked("the wearable is locked; unlock it with its passphrase or its recovery key")
        return self._key

    def _row(self, session: Session, recording: str) -> SessionRow:
        row = session.get(SessionRow, recording)
        if row is None:
            raise DataMissing(f"there is no session {recording}; `mcoe-client sessions list` shows them")
        return row
