"""The fixed vocabulary: emotions and lightings, in the order used by every array, table and plot."""

EMOTIONS: tuple[str, ...] = ("angry", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
LIGHTINGS: tuple[str, ...] = ("normal", "overexposed", "low-light", "hdr")

#: How SEE spells the lightings in its sequence names.
SEE_LIGHTINGS: dict[str, str] = {"normal": "normal", "overexposed": "Overexposed", "low-light": "Low", "hdr": "HDR"}
_FROM_SEE = {spelling.lower(): name for name, spelling in SEE_LIGHTINGS.items()}


def parse_emotion(text: str) -> str:
    """The emotion that SEE's spelling means (folders may say ``neutraL``). Raises ValueError for an unknown one."""
    if text.lower() not in EMOTIONS:
        raise ValueError(f"unknown emotion {text!r} (known: {', '.join(EMOTIONS)})")
    return text.lower()


def parse_lighting(text: str) -> str:
    """The lighting that SEE's spelling means. Raises ValueError for an unknown one."""
    lowered = text.lower()
    if lowered in LIGHTINGS:
        return lowered
    if lowered not in _FROM_SEE:
        raise ValueError(f"unknown lighting {text!r} (known: {', '.join(SEE_LIGHTINGS.values())})")
    return _FROM_SEE[lowered]
