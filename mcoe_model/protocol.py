"""The messages between client and server: frozen dataclasses, turned into plain values and checked when read. NumPy
only.

Three exchanges exist. A *check-in* tells the server who a node is; the question for it carries an *offer*, the model
that the client should run. A *train task* goes with the model's tensors to a client; a *reply* comes back: the update's
tensors, its meta data and a report. An *evaluate task* goes with the tensors of a new model and of its parent; a report
of counts comes back. With every message to a client go the news: of the updates in its outbox, of its program's version
and of its next check-in. Whoever reads one trusts nothing in it.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeVar, get_args, get_type_hints

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

#: No server asks a client to come again later than in so many seconds.
MAX_CHECK_IN_S = 30 * 86400.0

#: Why a client does not run a model that it was offered: its bytes are not those of its name; it is of another
#: generation; it holds values that are not finite; on the client's own clips it is worse than the one that it runs.
Refusal = Literal["damaged", "other generation", "not finite", "worse"]
REFUSALS: tuple[Refusal, ...] = get_args(Refusal)

#: What a client's program can do: learn with frozen backbones or in full, compare models, run offered ones.
Capability = Literal["train-head", "train-full", "evaluate", "run-models"]
#: Most capabilities that a client may name, each a short word; one of a newer program may be another.
MAX_CAPABILITIES = 16

#: What the server says of a client's version; empty when it says nothing. One that is too old trains nothing.
Standing = Literal["", "ok", "update-advised", "too-old"]

Plain = bool | int | float | str | list[int] | list[float] | list[str]
T = TypeVar("T")


class ProtocolError(ValueError):
    """A message that does not say what it must, in one line."""


class OtherProtocol(ProtocolError):
    """A check-in of a program that speaks another ``version`` of this protocol: no more of it can be read."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the client speaks protocol {version}, this side speaks {PROTOCOL_VERSION}")
        self.version = version


@dataclass(frozen=True)
class CheckIn:
    """Who a node is: a pseudonymous client id, the versions it speaks and how many labelled clips wait.

    ``outbox`` lists the ids of updates that the server has not acknowledged, as far as the client knows. ``runs`` is
    the SHA-256 of the model that the client runs; ``refused`` that of the last offered one that it does not want to
    run, with the reason ``refusal``, one of `REFUSALS`. They are empty where there is none. ``preset`` is that of the
    model whose generation the clips are encoded for, ``capabilities`` what the program can do.

    In every version of this protocol a check-in has a whole number ``protocol_version``.
    """

    client_id: str
    examples: int
    outbox: tuple[str, ...] = ()
    runs: str = ""
    refused: str = ""
    refusal: str = ""
    preset: str = ""
    capabilities: tuple[str, ...] = ()
    protocol_version: int = PROTOCOL_VERSION
    client_version: str = __version__

    def to_record(self) -> dict[str, Plain]:
        return asdict(self) | {"outbox": list(self.outbox), "capabilities": list(self.capabilities)}

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> CheckIn:
        """Raises OtherProtocol, whatever else the record holds then, and ProtocolError."""
        version: Any = record.get("protocol_version")
        if is_whole(version) and version != PROTOCOL_VERSION:
            raise OtherProtocol(int(version))
        checked = read_fields(CheckIn, record)
        for text in (checked.client_id, checked.client_version):
            if not 1 <= len(text) <= 64 or not text.isprintable():
                raise ProtocolError("a client's id and version must have 1 to 64 printable characters")
        if len(checked.preset) > 64 or not checked.preset.isprintable():
            raise ProtocolError("a preset's name must have at most 64 printable characters")
        words = checked.capabilities
        if len(words) > MAX_CAPABILITIES or not all(re.fullmatch("[a-z-]{1,24}", word) for word in words):
            raise ProtocolError(f"capabilities are at most {MAX_CAPABILITIES} words of small letters and -")
        if not 0 <= checked.examples <= MAX_EXAMPLES:
            raise ProtocolError(f"a client cannot hold {checked.examples} clips")
        if len(checked.outbox) > MAX_OUTBOX:
            raise ProtocolError(f"an outbox holds at most {MAX_OUTBOX} updates, not {len(checked.outbox)}")
        for identifier in checked.outbox:
            _check_update_id(identifier)
        for sha256 in filter(None, (checked.runs, checked.refused)):
            _check_sha256(sha256)
        if bool(checked.refused) != bool(checked.refusal) or checked.refusal not in ("", *REFUSALS):
            raise ProtocolError(f"a refused model comes with one of the reasons {', '.join(REFUSALS)}")
        return checked


@dataclass(frozen=True)
class Offer:
    """The model that a client should run. One that is a ``canary`` may be refused for being worse."""

    sha256: str
    canary: bool = False

    def to_record(self) -> dict[str, Plain]:
        return asdict(self)

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> Offer:
        offer = read_fields(Offer, record)
        _check_sha256(offer.sha256)
        return offer


@dataclass(frozen=True)
class News:
    """What a client hears with the next message of any kind.

    It may let go of the updates ``accepted`` and ``dropped``. ``standing`` is said of its version. It may leave, and
    come again in ``next_check_in_s`` seconds; 0: it stays connected.
    """

    accepted: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    standing: Standing = ""
    next_check_in_s: float = 0.0

    def to_record(self) -> dict[str, Plain]:
        return asdict(self) | {"accepted": list(self.accepted), "dropped": list(self.dropped)}

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> News:
        news = read_fields(News, record)
        for identifier in (*news.accepted, *news.dropped):
            _check_update_id(identifier)
        if news.standing not in get_args(Standing):
            raise ProtocolError(f"unknown standing {news.standing!r}")
        if not 0 <= news.next_check_in_s <= MAX_CHECK_IN_S:
            raise ProtocolError(f"no check-in is due in {news.next_check_in_s} seconds")
        return news


@dataclass(frozen=True)
class TrainTask:
    """What a client is asked to do with the tensors that come beside it.

    ``base_sha256`` names the model file; ``payload_sha256`` is the hash of the tensors sent, so that a client knows
    that it trains what the server meant. ``expert_load`` is the cohort's expert load in the round before, empty at
    first. ``all_experts``: every expert is sent, used or not, since which ones are absent tells what a client used.
    ``welcome``: earlier bases, the newest first, of which an update that the client still keeps is taken in place of
    a new one.
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
    welcome: tuple[str, ...] = ()
    protocol_version: int = PROTOCOL_VERSION

    def to_record(self) -> dict[str, Plain]:
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "fine_tune"}
        plain |= {"expert_load": list(self.expert_load), "welcome": list(self.welcome)}
        return plain | {f"fine_tune.{key}": value for key, value in asdict(self.fine_tune).items()}

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> TrainTask:
        """Raises ProtocolError, also for training settings out of their bounds."""
        prefix = "fine_tune."
        training = {key.removeprefix(prefix): value for key, value in record.items() if key.startswith(prefix)}
        rest = {key: value for key, value in record.items() if not key.startswith(prefix)}
        try:
            task = read_fields(TrainTask, rest | {"fine_tune": read_fields(FineTuneSettings, training)})
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
        meta = read_fields(UpdateMeta, record)
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
        report = read_fields(TrainReport, rest | {"router": router})
        if not all(math.isfinite(value) for value in (report.loss_before, report.loss_after, report.seconds)):
            raise ProtocolError("a loss or a duration is not finite")
        return report


@dataclass(frozen=True)
class EvaluateTask:
    """Which model a client is asked to compare with its parent, on its own labelled clips.

    The tensors of both come beside it; ``payload_sha256`` and ``parent_payload_sha256`` are the hashes of those.
    """

    model_sha256: str
    payload_sha256: str
    parent_payload_sha256: str
    generation: str
    train_mode: TrainMode
    protocol_version: int = PROTOCOL_VERSION

    def to_record(self) -> dict[str, Plain]:
        return asdict(self)

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> EvaluateTask:
        task = read_fields(EvaluateTask, record)
        _same_protocol("server", task.protocol_version)
        if task.train_mode not in TRAIN_MODES:
            raise ProtocolError(f"unknown train mode {task.train_mode!r}")
        return task


@dataclass(frozen=True)
class EvaluateReport:
    """How many of a client's ``examples`` clips the model and its parent recognise."""

    client_id: str
    model_sha256: str
    examples: int
    correct: int
    parent_correct: int
    protocol_version: int = PROTOCOL_VERSION

    def to_record(self) -> dict[str, Plain]:
        return asdict(self)

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> EvaluateReport:
        report = read_fields(EvaluateReport, record)
        _same_protocol("client", report.protocol_version)
        if not 1 <= report.examples <= MAX_EXAMPLES:
            raise ProtocolError(f"a model cannot be evaluated on {report.examples} clips")
        for correct in (report.correct, report.parent_correct):
            if not 0 <= correct <= report.examples:
                raise ProtocolError(f"{correct} of {report.examples} clips cannot be right")
        return report


def update_id(client_id: str, base_sha256: str, clip_names: Iterable[str]) -> str:
    """The id of the update that this client makes of these clips from this base: 32 hex digits.

    The first of them are the client's in all its ids, so that no other client can take one that is not sent yet.
    """
    text = "\x1f".join([client_id, base_sha256, *sorted(clip_names)])
    return (_owner(client_id) + hashlib.sha256(text.encode()).hexdigest())[:32]


def owns_update(client_id: str, identifier: str) -> bool:
    """Whether an update id can be one of this client's."""
    return identifier.startswith(_owner(client_id))


def _owner(client_id: str) -> str:
    return hashlib.sha256(client_id.encode()).hexdigest()[:12]


def _check_update_id(text: str) -> None:
    if len(text) != 32 or set(text) - set("0123456789abcdef"):
        raise ProtocolError("an update id must be 32 hex digits")


def _check_sha256(text: str) -> None:
    if len(text) != 64 or set(text) - set("0123456789abcdef"):
        raise ProtocolError("a model's SHA-256 must be 64 hex digits")


def _same_protocol(sender: str, version: int) -> None:
    if version != PROTOCOL_VERSION:
        raise ProtocolError(f"the {sender} speaks protocol {version}, this side speaks {PROTOCOL_VERSION}")


def read_fields(kind: type[T], record: Mapping[str, Any]) -> T:
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
