"""The text that wearers agree to: ours, a coordinator's, and files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.consent_text import LANGUAGES, ConsentTexts, read_consent_text
from mcoe_model.errors import DataInvalid, DataMissing


def test_ours_is_there_in_every_language_under_one_version() -> None:
    texts = [read_consent_text(None, language) for language in LANGUAGES]
    assert len({text.version for text in texts}) == 1
    assert len({text.sha256 for text in texts}) == len(LANGUAGES)


def test_ours_says_what_the_server_hears_and_what_it_could_guess() -> None:
    """As `client/leaving.py` and docs/federation.md have it: a promise that is kept, and none that is not."""
    for language, words in {
        "en": ("asks the server", "receipt", "could guess"),
        "de": ("bittet den Server", "Quittung", "könnte daraus erraten"),
    }.items():
        assert all(word in read_consent_text(None, language).text for word in words)


def test_a_coordinators_text_takes_the_place_of_ours(tmp_path: Path) -> None:
    (tmp_path / "de.txt").write_text("studie-7\n\nGrüße.\n", encoding="utf-8")
    text = read_consent_text(tmp_path, "de")
    assert (text.version, text.language, text.text) == ("studie-7", "de", "Grüße.")
    with pytest.raises(DataMissing, match=r"en\.txt; the coordinator"):
        read_consent_text(tmp_path, "en")


@pytest.mark.parametrize("content", [b"", b"no version, but a sentence\ntext", b"1\n\n", b"1\n\xff\xfe"])
def test_a_file_without_version_or_text_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "en.txt").write_bytes(content)
    with pytest.raises(DataInvalid):
        read_consent_text(tmp_path, "en")


def test_texts_that_are_being_exchanged_count_once_they_fit_together(tmp_path: Path) -> None:
    for language in LANGUAGES:
        (tmp_path / f"{language}.txt").write_text("1\nfirst")
    texts = ConsentTexts(tmp_path)
    (tmp_path / "en.txt").write_text("2\nsecond")
    assert (texts.version, texts.text("en").text) == ("1", "first")
    with pytest.raises(DataInvalid, match=r"en\.txt is 2, de\.txt is 1"):
        ConsentTexts(tmp_path)
    (tmp_path / "de.txt").write_text("2\nzweiter")
    assert (texts.version, texts.text("en").text, texts.text("de").text) == ("2", "second", "zweiter")
    for language in LANGUAGES:
        (tmp_path / f"{language}.txt").unlink()
    assert texts.version == "2"
