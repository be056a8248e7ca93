"""`mcoe-client --device ...`: the wearable with its page and its commands, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from client.child_process import no_core_dump
from client.consent_text import ConsentTexts
from client.control import Answers, serve_control
from client.only_one import only_one
from client.page.serve import serve_page
from client.page.settings import PageSettings
from client.protocol_file import read_protocol, run_protocol
from client.settings import ClientSettings
from client.wearable import Wearable
from mcoe_model.errors import DataMissing

log = logging.getLogger("mcoe")


def run_wearable(folder: Path, device: str, settings: ClientSettings, ready: Callable[[int], None]) -> None:
    """Run until SIGTERM or SIGINT. ``ready`` is told the page's port once it is served.

    Raises WearableRuns, PortInUse, SettingsError, SchemaTooNew, DataInvalid.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    for name in ("alembic", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
    no_core_dump()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with only_one(folder):
        asyncio.run(_run(folder, device, settings, ready))


async def _run(folder: Path, device: str, settings: ClientSettings, ready: Callable[[int], None]) -> None:
    stopping, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    texts = ConsentTexts(settings.consent_folder)
    wearable = Wearable(folder, device, settings.rules(), texts, settings.check_in_rules)
    await wearable.open()

    def served(at: int) -> None:
        port.set_result(at)
        ready(at)

    async def page() -> dict[str, Any]:
        return {"page_host": settings.page_host, "page_port": await port, "page_tls": settings.page_tls}

    answers = {**answers_of(wearable, texts), "page": page}
    address = settings.page_host, settings.page_port, settings.page_tls
    where = PageSettings(folder / "page", *address, settings.consent_folder, settings.language)
    parts = (
        wearable.run(stopping),
        serve_control(folder, answers, stopping),
        serve_page(wearable, where, stopping, served),
    )
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        stopping.set()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for fault in ended:
        if isinstance(fault, BaseException):
            raise fault


def answers_of(wearable: Wearable, texts: ConsentTexts) -> Answers:
    """What the commands can ask for, by name; ``texts``: what wearers are asked to agree to."""

    async def status() -> dict[str, Any]:
        return asdict(await wearable.status())

    async def label(span: int, label: str, intensity: int | None) -> dict[str, Any]:
        return asdict(await wearable.label(span, label, intensity))

    async def show(session: str) -> dict[str, Any]:
        return asdict(await wearable.session(session))

    async def sessions() -> list[dict[str, Any]]:
        return [asdict(one) for one in await wearable.kept_locked(lambda store: store.sessions())]

    async def consents() -> list[dict[str, Any]]:
        return [asdict(one) for one in await wearable.kept_locked(lambda store: [*store.consents().values()])]

    async def consent(kind: str, language: str) -> None:
        await wearable.consent(kind, texts.text(language))

    async def exit_codes() -> dict[str, int | None]:
        return {child.name: child.last_code for child in wearable.children}

    async def stop(session: str | None = None) -> str:
        here = wearable.recording()
        if session is not None and (here is None or here.session != session):
            raise DataMissing(f"session {session} has ended already")
        return await wearable.stop_recording()

    async def record_protocol(text: str) -> dict[str, Any]:
        return await show(await run_protocol(wearable, read_protocol(text)))

    async def new_wearer(code: str, passphrase: str | None) -> str | None:
        return await wearable.change_wearer(code, passphrase)

    done: dict[str, Callable[..., Awaitable[Any]]] = {
        "status": status,
        "exit_codes": exit_codes,
        "start": wearable.start_recording,
        "stop": stop,
        "save_last": wearable.save_last,
        "record_protocol": record_protocol,
        "label": label,
        "sessions": sessions,
        "show": show,
        "delete": wearable.discard,
        "consents": consents,
        "consent": consent,
        "withdraw": wearable.withdraw,
        "unlock": wearable.unlock,
        "lock": wearable.lock,
        "forget": wearable.forget,
        "new_wearer": new_wearer,
    }
    return done
