"""The messages between client and server: frozen dataclasses, turned into plain values and checked when read. NumPy
only.

Three messages exist. A *check-in* tells the server who a node is. A *train task* goes with the model's tensors to a
client. A *reply* comes back: the update's tensors, its meta data and a report. With every message to a client goes the
news of the updates in its outbox. Whoever reads one trusts nothing in it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar, get_args, get_type_hints

from mcoe_model import __version__
from mcoe_model.errors import SettingsError
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.model_file import PROTOCOL_VERSION
from mcoe_model.router_statistics import RouterStatistics, is_whole
from mcoe_model.update import ENCODING, TRAIN_MODES, TrainMode

#: No client has more labelled clips than this; a message that says so is not believed.
MAX_EXAMPLES = 1_000_000

#: No client keeps more updates than this: one for each model that it was asked to train and not told about.
MAX_OUTBOX = 64

Plain = bool | int | float | str | list[int] | list[float] | list[str]
T = TypeVar("T")


class ProtocolError(ValueError):
    """A message that does not say what it must, in one line."""


@dataclass(frozen=True)
class CheckIn:
    """Who a node is: a pseudonymous client id, the versions it speaks and how many labelled clips wait.

    ``outbox`` lists the ids of updates that the server has not acknowledged, as far as the client knows.
    """

    client_id: str
    examples: int
    outbox: tuple[str, ...] = ()
    protocol_version: int = PROTOCOL_VERSION
    client_version: str = __version__

    def to_record(self) -> dict[str, Plain]:
        return asdict(self) | {"outbox": list(self.outbox)}

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> CheckIn:
        checked = _read(CheckIn, record)
        _same_protocol("client", checked.protocol_version)
        for text in (checked.client_id, checked.client_version):
            if not 1 <= len(text) <= 64 or not text.isprintable():
                raise ProtocolError("a client's id and version must have 1 to 64 printable characters")
        if not 0 <= checked.examples <= MAX_EXAMPLES:
            raise ProtocolError(f"a client cannot hold {checked.examples} clips")
        if len(checked.outbox) > MAX_OUTBOX:
            raise ProtocolError(f"an outbox holds at most {MAX_OUTBOX} updates, not {len(checked.outbox)}")
        for identifier in checked.outbox:
            _check_update_id(identifier)
        return checked


@dataclass(frozen=True)
class OutboxNews:
    """What became of updates that a client keeps, on the next message of any kind: it may let go of them."""

    accepted: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    def to_record(self) -> dict[str, Plain]:
        return {"accepted": list(self.accepted), "dropped": list(self.dropped)}

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> OutboxNews:
        news = _read(OutboxNews, record)
        for identifier in (*news.accepted, *news.dropped):
            _check_update_id(identifier)
        return news


@dataclass(frozen=True)
class TrainTask:
    """What a client is asked to do with the tensors that come beside it.

    ``base_sha256`` names the model file; ``payload_sha256`` is the hash of the tensors sent, so that a client knows
    that it trains what the server meant. ``expert_load`` is the cohort's expert load in the round before, empty at
    first. ``all_experts``: every expert is sent, used or not, since which ones are absent tells what a client used.
    """

    round_number: int
    base_sha256: str
    payload_sha256: str
    generation: str
    train_mode: TrainMode
    fine_tune: FineTuneSettings
    seed: int
    expert_load: tuple[float, ...] = ()
    all_experts: bool = False
    protocol_version: int = PROTOCOL_VERSION

    def to_record(self) -> dict[str, Plain]:
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "fine_tune"}
        plain["expert_load"] = list(self.expert_load)
        return plain | {f"fine_tune.{key}": value for key, value in asdict(self.fine_tune).items()}

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> TrainTask:
        """Raises ProtocolError, also for training settings out of their bounds."""
        prefix = "fine_tune."
        training = {key.removeprefix(prefix): value for key, value in record.items() if key.startswith(prefix)}
        rest = {key: value for key, value in record.items() if not key.startswith(prefix)}
        try:
            task = _read(TrainTask, rest | {"fine_tune": _read(FineTuneSettings, training)})
        except SettingsError as fault:
            raise ProtocolError(f"the task's training settings are out of bounds: {fault}") from fault
        _same_protocol("server", task.protocol_version)
        if task.train_mode not in TRAIN_MODES:
            raise ProtocolError(f"unknown train mode {task.train_mode!r}")
        return task


@dataclass(frozen=True)
class UpdateMeta:
    """What an update is an update of. ``experts_sent`` lists the experts that were used in training, in order."""

    update_id: str
    client_id: str
    round_number: int
    base_sha256: str
    generation: str
    train_mode: TrainMode
    experts_sent: tuple[int, ...]
    encoding: str = ENCODING
    client_version: str = __version__
    protocol_version: int = PROTOCOL_VERSION

    def to_record(self) -> dict[str, Plain]:
        return asdict(self) | {"experts_sent": list(self.experts_sent)}

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> UpdateMeta:
        meta = _read(UpdateMeta, record)
        _same_protocol("client", meta.protocol_version)
        if meta.train_mode not in TRAIN_MODES:
            raise ProtocolError(f"unknown train mode {meta.train_mode!r}")
        if list(meta.experts_sent) != sorted(set(meta.experts_sent)) or any(e < 0 for e in meta.experts_sent):
            raise ProtocolError("the experts sent must be ascending, without repetition")
        _check_update_id(meta.update_id)
        return meta


@dataclass(frozen=True)
class TrainReport:
    """What a client measured: mean loss over its clips before and after, seconds spent, and its router statistics."""

    examples: int
    loss_before: float
    loss_after: float
    seconds: float
    router: RouterStatistics

    def to_record(self) -> dict[str, Plain]:
        plain: dict[str, Plain] = {
            "examples": self.examples,
            "loss_before": self.loss_before,
            "loss_after": self.loss_after,
            "seconds": self.seconds,
        }
        return plain | self.router.to_record()

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> TrainReport:
        try:
            router = RouterStatistics.from_record(record)
        except ValueError as fault:
            raise ProtocolError(str(fault)) from fault
        rest = {key: value for key, value in record.items() if not key.startswith("router-")}
        report = _read(TrainReport, rest | {"router": router})
        if not all(math.isfinite(value) for value in (report.loss_before, report.loss_after, report.seconds)):
            raise ProtocolError("a loss or a duration is not finite")
        return report


def update_id(client_id: str, base_sha256: str, clip_names: Iterable[str]) -> str:
    """The id of the update that this client makes of these clips from this base: 32 hex digits."""
    text = "\x1f".join([client_id, base_sha256, *sorted(clip_names)])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _check_update_id(text: str) -> None:
    if len(text) != 32 or set(text) - set("0123456789abcdef"):
        raise ProtocolError("an update id must be 32 hex digits")


def _same_protocol(sender: str, version: int) -> None:
    if version != PROTOCOL_VERSION:
        raise ProtocolError(f"the {sender} speaks protocol {version}, this side speaks {PROTOCOL_VERSION}")


def _read(kind: type[T], record: Mapping[str, Any]) -> T:
    """Build ``kind`` from exactly its own fields with exactly their types. Raises ProtocolError."""
    hints = get_type_hints(kind)
    missing, extra = sorted(hints.keys() - record.keys()), sorted(record.keys() - hints.keys())
    if missing or extra:
        raise ProtocolError(f"{kind.__name__}: missing {missing or 'nothing'}, unknown {extra or 'nothing'}")
    return kind(**{name: _typed(kind, name, hints[name], record[name]) for name in hints})


def _typed(kind: type[Any], name: str, hint: Any, value: Any) -> Any:
    wrong = ProtocolError(f"{kind.__name__}.{name} holds a {type(value).__name__}, which does not fit")
    if hint is int:
        if not is_whole(value):
            raise wrong
    elif hint in (str, bool):
        if type(value) is not hint:
            raise wrong
    elif hint is float:
        if type(value) is not float and not is_whole(value):
            raise wrong
        return float(value)
    elif hint in (tuple[int, ...], tuple[float, ...], tuple[str, ...]):
        item = get_args(hint)[0]
        if not isinstance(value, list | tuple):
            raise wrong
        return tuple(_typed(kind, name, item, entry) for entry in value)
    elif not isinstance(value, hint if isinstance(hint, type) else str):
        raise wrong
    return value
