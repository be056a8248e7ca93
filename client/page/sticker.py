"""How a phone comes to the page: its address with the pairing code, as text, in a terminal, and on a sticker."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from client.page.certificate import readable
from mcoe_model.errors import MissingExtra

try:
    import segno
except ImportError as fault:
    raise MissingExtra("QR codes are made by segno; install it with: pip install 'mcoe[capture]'") from fault

#: Pixels: 62 x 40 mm at 300 dots per inch, a common label.
SIZE = (732, 472)
_QR_MODULE = 8
_MARGIN = 20


@dataclass(frozen=True)
class Invitation:
    """What a phone needs. ``fingerprint``: the certificate's SHA-256, 64 hex digits; without ``tls`` nobody sees it."""

    name: str
    port: int
    fingerprint: str
    code: str
    tls: bool = True

    @property
    def address(self) -> str:
        scheme, usual = ("https", 443) if self.tls else ("http", 80)
        return f"{scheme}://{self.name}" + ("" if self.port == usual else f":{self.port}")

    @property
    def link(self) -> str:
        """With the code behind a ``#``, which a browser keeps to itself."""
        return f"{self.address}/pair#{self.code}"


def terminal_qr(link: str) -> str:
    """A QR code of block characters for a terminal."""
    out = io.StringIO()
    segno.make(link, micro=False).terminal(out, border=2, compact=True)
    return out.getvalue()


def sticker_png(invitation: Invitation) -> bytes:
    """The sticker as a PNG of SIZE, black on white."""
    image = Image.new("L", SIZE, 255)
    qr = io.BytesIO()
    segno.make(invitation.link, micro=False, error="m").save(qr, kind="png", scale=_QR_MODULE, border=4)
    code = Image.open(qr).convert("L")
    image.paste(code, (0, 0))
    draw, left = ImageDraw.Draw(image), code.width + 4
    lines = [(40, invitation.name.removesuffix(".local")), (24, f".local:{invitation.port}"), (20, ""),
             (20, "Pairing code"), (44, invitation.code)]  # fmt: skip
    top = _MARGIN + 12
    for size, text in lines:
        draw.text((left, top), text, fill=0, font=ImageFont.load_default(size))
        top += size + 10
    pairs = readable(invitation.fingerprint).split(":")
    draw.text((_MARGIN + 12, code.height), "Certificate SHA-256", fill=0, font=ImageFont.load_default(20))
    for row in range(2):
        text = ":".join(pairs[row * 16 : row * 16 + 16])
        where = (_MARGIN + 12, code.height + 30 + row * 32)
        draw.text(where, text, fill=0, font=ImageFont.load_default(26))
    out = io.BytesIO()
    image.save(out, "PNG", dpi=(300, 300))
    return out.getvalue()
