"""Every error a user can meet, with its exit code.

An error's text is one line: what is wrong, where, and what to do. `docs/exit-codes.md` is generated from `ExitCode`:
``python -c "from mcoe_model.errors import exit_code_table; print(exit_code_table(), end='')" > docs/exit-codes.md``
"""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Exit codes of every command. The text behind each is its documentation."""

    OK = 0
    FAILED = 1
    USAGE = 2
    DECISION_NEEDED = 3
    DATA_MISSING = 10
    DATA_INVALID = 11
    TOO_FEW_SUBJECTS = 12
    OUTPUT_EXISTS = 20
    DISK_FULL = 21
    NOT_RESUMABLE = 22
    MODEL_INVALID = 30
    MISSING_EXTRA = 31
    CAMERA_MISSING = 32
    ROUND_FAILED = 40
    ENGINE_FAILED = 41
    SCHEMA_TOO_NEW = 50
    LOCKED = 51
    CONSENT_MISSING = 52
    WEARABLE_DOWN = 53
    WEARABLE_RUNS = 54
    RECORDING_RUNS = 55
    LABEL_FIRST = 56
    ENROLMENT_REFUSED = 60
    SERVER_UNREACHABLE = 61
    PORT_IN_USE = 62
    SERVER_RUNS = 63
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.OK: "The command did what it was asked.",
    ExitCode.FAILED: "An error that no other code names; the message says which.",
    ExitCode.USAGE: "A setting is wrong. All wrong settings are listed together; nothing was started.",
    ExitCode.DECISION_NEEDED: "The command asks for a decision that has no default; nothing was done yet.",
    ExitCode.DATA_MISSING: "A data folder, an annotation file or a checkpoint is not there.",
    ExitCode.DATA_INVALID: "Data are there but cannot be used: torn pictures, folders of unequal length, bad rows.",
    ExitCode.TOO_FEW_SUBJECTS: "The data hold too few subjects or sequences for the split or the cohort asked for.",
    ExitCode.OUTPUT_EXISTS: "The output folder exists already. Resume it, or name another.",
    ExitCode.DISK_FULL: "The disk is full. Nothing half-written was left; free space and resume.",
    ExitCode.NOT_RESUMABLE: "The folder to resume holds no run, or a run with other settings.",
    ExitCode.MODEL_INVALID: "A checkpoint is damaged or does not fit the preset: names or shapes are listed.",
    ExitCode.MISSING_EXTRA: "An optional dependency is not installed; the message gives the install command.",
    ExitCode.CAMERA_MISSING: "The camera is not there or cannot be used; the message says why and what to do.",
    ExitCode.ROUND_FAILED: "Too many rounds were abandoned, because too few replies were fit to aggregate.",
    ExitCode.ENGINE_FAILED: "Flower's simulation engine reported a failed run.",
    ExitCode.SCHEMA_TOO_NEW: "The registry, or a wearer's store, was written by a newer version of this program.",
    ExitCode.ENROLMENT_REFUSED: "The server does not take this wearable; the reason is said.",
    ExitCode.SERVER_UNREACHABLE: "Nobody answers at the server's address, or not with the fleet's certificate.",
    ExitCode.PORT_IN_USE: "Another program listens at a port that is needed.",
    ExitCode.SERVER_RUNS: "Another server runs on the same data folder.",
    ExitCode.LOCKED: "The wearable is locked: its passphrase or its recovery key is needed.",
    ExitCode.CONSENT_MISSING: "The wearer has not agreed to this, or to an older text only; nothing was done.",
    ExitCode.WEARABLE_DOWN: "No wearable runs on this folder, and the command needs one that does.",
    ExitCode.WEARABLE_RUNS: "Another wearable runs on the same folder.",
    ExitCode.RECORDING_RUNS: "A recording is under way, during which this cannot be done.",
    ExitCode.LABEL_FIRST: "Recordings fill their quota and wait for labels; label or delete those that are named.",
    ExitCode.INTERRUPTED: "Stopped by Ctrl-C, or since nobody reads the output; the message says how to go on.",
}


def exit_code_table() -> str:
    """The page `docs/exit-codes.md`."""
    rows = [f"| {code.value} | {code.name.lower().replace('_', ' ')} | {code.meaning} |" for code in ExitCode]
    return "\n".join(
        [
            "# Exit codes",
            "",
            "Every command ends with one of these. Where it is not 0, the last line on standard error says what is "
            "wrong,\nwhere, and what to do; what `doctor` and `rounds replay` find is on standard output.",
            "",
            "| Code | Name | Meaning |",
            "|---:|---|---|",
            *rows,
            "",
        ]
    )


class McoeError(Exception):
    """Base of every expected error: its text goes to the user as one line, its code to the shell."""

    exit_code = ExitCode.FAILED


def for_log(fault: BaseException) -> str:
    """What a log may say of a fault: its kind and its code. Its text may hold a path, a subject or a name."""
    code = f", exit code {fault.exit_code:d}" if isinstance(fault, McoeError) else ""
    return f"{type(fault).__name__}{code}"


class SettingsError(McoeError):
    """One or more settings are wrong; ``faults`` lists them all."""

    exit_code = ExitCode.USAGE

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__(faults[0] if len(faults) == 1 else "; ".join(faults))


class DecisionNeeded(McoeError):
    """A command that cannot be undone was not told which way to go."""

    exit_code = ExitCode.DECISION_NEEDED


class DataMissing(McoeError):
    """A folder or file that was named is not there."""

    exit_code = ExitCode.DATA_MISSING


class DataInvalid(McoeError):
    """Data that are there but cannot be used."""

    exit_code = ExitCode.DATA_INVALID


class TooFewSubjects(McoeError):
    """Fewer subjects or sequences than the split or the cohort needs."""

    exit_code = ExitCode.TOO_FEW_SUBJECTS


class OutputExists(McoeError):
    """The output folder is there already."""

    exit_code = ExitCode.OUTPUT_EXISTS


class DiskFull(McoeError):
    """A write found no space."""

    exit_code = ExitCode.DISK_FULL


class NotResumable(McoeError):
    """There is no run to resume, or its settings differ."""

    exit_code = ExitCode.NOT_RESUMABLE


class ModelInvalid(McoeError):
    """A checkpoint that is damaged, or whose names or shapes do not fit."""

    exit_code = ExitCode.MODEL_INVALID


class MissingExtra(McoeError):
    """An optional dependency is needed and not installed."""

    exit_code = ExitCode.MISSING_EXTRA


class CameraMissing(McoeError):
    """The camera that was named is not there, or cannot be used."""

    exit_code = ExitCode.CAMERA_MISSING


class RoundFailed(McoeError):
    """Rounds were abandoned too often to go on."""

    exit_code = ExitCode.ROUND_FAILED


class EngineFailed(McoeError):
    """Flower's engine reported a failed run."""

    exit_code = ExitCode.ENGINE_FAILED


class SchemaTooNew(McoeError):
    """A database's schema is newer than this program."""

    exit_code = ExitCode.SCHEMA_TOO_NEW


class EnrolmentRefused(McoeError):
    """A client may not join, or is not a member."""

    exit_code = ExitCode.ENROLMENT_REFUSED


class ServerUnreachable(McoeError):
    """The server does not answer."""

    exit_code = ExitCode.SERVER_UNREACHABLE


class PortInUse(McoeError):
    """A port that the server needs is taken."""

    exit_code = ExitCode.PORT_IN_USE


class ServerRuns(McoeError):
    """The data folder is in use."""

    exit_code = ExitCode.SERVER_RUNS


class Locked(McoeError):
    """The device key is locked, and what was given does not open it."""

    exit_code = ExitCode.LOCKED


class ConsentMissing(McoeError):
    """The wearer did not agree to this, or no longer."""

    exit_code = ExitCode.CONSENT_MISSING


class WearableDown(McoeError):
    """No main process runs that could do it."""

    exit_code = ExitCode.WEARABLE_DOWN


class WearableRuns(McoeError):
    """The wearable's folder is in use."""

    exit_code = ExitCode.WEARABLE_RUNS


class RecordingRuns(McoeError):
    """A recording is under way."""

    exit_code = ExitCode.RECORDING_RUNS


class LabelFirst(McoeError):
    """There is no room for a recording before earlier ones are labelled or deleted."""

    exit_code = ExitCode.LABEL_FIRST
