"""A wearer's phone: what a browser does with the wearable's page, over HTTPS and with a pairing, without a browser."""

from __future__ import annotations

import re
import secrets
import ssl
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from mcoe_model.data.geometry import Geometry
from simulations.fleet.processes import ProcessFailed

#: Seconds for an answer; ending a recording takes long on a machine that is busy.
_ANSWER_S = 180.0


class Phone:
    """A phone whose owner has looked at the certificate's fingerprint on the sticker.

    Every method raises ProcessFailed, with the page's own words, for what the page refuses.
    """

    def __init__(self, port: int, certificate: Path) -> None:
        self.address = f"https://localhost:{port}"
        trusted = ssl.create_default_context(cafile=str(certificate))
        self._http = httpx.Client(base_url=self.address, verify=trusted, timeout=_ANSWER_S)

    def pair(self, code: str) -> None:
        """Show the code that the wearable shows."""
        self._post("/api/pair", code=code)

    def set_up(self, passphrase: str, kinds: tuple[str, ...]) -> None:
        """The first visit: agree to these uses, choose a passphrase."""
        self._post("/api/set-up", kinds=kinds, version=self._shown("/consent", "data-version"), passphrase=passphrase)

    def unlock(self, passphrase: str) -> None:
        """After a start of the wearable."""
        self._post("/api/unlock", words=passphrase)

    def join(self, invitation: str) -> None:
        """Paste an invitation to a fleet."""
        self._post("/api/join", line=invitation)

    def preview(self, geometry: Geometry, after: int) -> int:
        """Wait for the next picture to fit the camera by; its number, or ``after`` when none has come."""
        square = {name: value for name, value in asdict(geometry).items() if name != "version"}
        answer = self._http.get("/api/preview", params={**square, "after": after})
        if not answer.is_success:
            raise ProcessFailed(f"the page refuses the preview: {answer.text}")
        return int(answer.headers.get("X-Number", after))

    def start(self) -> str:
        """Begin to record; the session's id."""
        return str(self._post("/api/record/start")["session"])

    def stop(self) -> None:
        """End the recording."""
        self._post("/api/record/stop")

    def times(self, session: str) -> tuple[int, int]:
        """When a session began and ended [us since 1970], as far as its label screen says."""
        began = datetime.fromisoformat(self._shown(f"/label/{session}", "time datetime"))
        start_us = round(began.timestamp() * 1e6)
        return start_us, start_us + round(1e6 * float(self._shown(f"/label/{session}", "data-seconds")))

    def add(self, session: str, start_us: int, end_us: int) -> int:
        """A part of a session, in microseconds from its start, to be labelled; its number."""
        return int(self._post("/api/spans", session=session, start_us=start_us, end_us=end_us)["span"])

    def label(self, span: int, label: str) -> None:
        """Say what a part shows."""
        self._post("/api/label", span=span, label=label, intensity=None)

    def get(self, path: str) -> bytes:
        """What the page shows or sends at a path."""
        answer = self._http.get(path)
        if answer.status_code != 200:
            raise ProcessFailed(f"the page answers {answer.status_code} at {path}")
        return answer.content

    def close(self) -> None:
        """Put the phone away."""
        self._http.close()

    def _shown(self, path: str, name: str) -> str:
        """The value of an attribute, the first of its name on a screen."""
        found = re.search(f'{name}="([^"]*)"', self.get(path).decode())
        if found is None:
            raise ProcessFailed(f"the page shows no {name} at {path}")
        return found[1]

    def _post(self, path: str, **form: Any) -> dict[str, Any]:
        key = {"Idempotency-Key": secrets.token_hex(16), "Origin": self.address}
        answer = self._http.post(path, json=form, headers=key)
        if answer.status_code != 200:
            raise ProcessFailed(f"the page refuses {path}: {answer.text}")
        return dict(answer.json())
