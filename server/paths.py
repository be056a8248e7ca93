"""Where everything of a server lies in its data folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from server.registry.database import sqlite_url


@dataclass(frozen=True)
class ServerPaths:
    """The files of a server's data folder."""

    folder: Path

    @property
    def settings(self) -> Path:
        return self.folder / "mcoe-server.toml"

    @property
    def certificates(self) -> Path:
        return self.folder / "certificates"

    @property
    def registry(self) -> Path:
        return self.folder / "registry.sqlite"

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def spool(self) -> Path:
        """The spools of all experiments."""
        return self.folder / "spool"

    def spool_of(self, experiment: str) -> Path:
        """The spool of one experiment's rounds."""
        return self.spool / experiment

    @property
    def superlink(self) -> Path:
        """Flower's database: disposable, since registrations can be made again from the registry."""
        return self.folder / "superlink.sqlite"

    @property
    def secret(self) -> Path:
        """What the coordinator shows the SuperLink to be given its task."""
        return self.folder / "superexec.secret"

    def run_of(self, experiment: str) -> Path:
        """How an experiment's coordinator holds its Flower run, for its successor; a secret."""
        return self.folder / "runs" / f"{experiment}.json"

    def under_way_of(self, experiment: str) -> Path:
        """The train messages that wait for a reply."""
        return self.folder / "runs" / f"{experiment}.sent.json"

    @property
    def errands(self) -> Path:
        """What is still to be cleared of clients that were forgotten."""
        return self.folder / "errands"

    def lock_of(self, experiment: str) -> Path:
        """Held by an experiment's coordinator."""
        return self.folder / "runs" / f"{experiment}.lock"

    def at_work(self, experiment: str) -> Path:
        """Held by an experiment's coordinator once it has what it works with."""
        return self.folder / "runs" / f"{experiment}.at-work"

    @property
    def running_lock(self) -> Path:
        """Held by `mcoe-server start`."""
        return self.folder / "running.lock"

    @property
    def used_signatures(self) -> Path:
        """Which signed requests were made in the last two minutes, by a random number each."""
        return self.folder / "used-signatures"

    @property
    def noise_secret(self) -> Path:
        """What the noise of private rounds is drawn from; whoever knows it can take the noise away."""
        return self.folder / "noise.secret"

    @property
    def receipts(self) -> Path:
        """What was issued to clients that were forgotten."""
        return self.folder / "receipts"

    @property
    def answered(self) -> Path:
        """The same by a hash of the key that asked, for a while, for who did not hear the answer."""
        return self.folder / "answered"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def database_url(self, database: str) -> str:
        """The registry's database, given the setting of that name."""
        return database or sqlite_url(self.registry)
