"""What the drawn pictures look like: lightings, event pictures, relit performances, emotions that can be told apart."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from mcoe_model.data.synthetic import SyntheticSettings
from mcoe_model.data.synthetic.clip import draw_clip, play
from mcoe_model.data.synthetic.design import Clip, plan
from mcoe_model.data.synthetic.expression import TEMPLATES, contractions
from mcoe_model.data.synthetic.face import draw_face
from mcoe_model.data.synthetic.performance import Performance
from mcoe_model.names import EMOTIONS, LIGHTINGS
from mcoe_model.streams import stream

Pictures = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@pytest.fixture(scope="module")
def lit() -> dict[str, list[Pictures]]:
    """Frames and events of the same sixteen performances under each lighting."""
    settings = SyntheticSettings(subjects=16, sequences=1, design="crossed", size=64)
    drawn: dict[str, list[Pictures]] = defaultdict(list)
    for clip in plan(settings):
        drawn[clip.lighting].append(draw_clip(replace(clip, length=24), settings))
    return drawn


def test_pictures_have_the_clips_length_and_size() -> None:
    settings = SyntheticSettings(subjects=1, size=48)
    clip = plan(settings)[0]
    for pictures in draw_clip(clip, settings):
        assert pictures.shape == (clip.length, 48, 48)
        assert pictures.dtype == np.uint8


def test_grey_levels_are_near_sees(lit: dict[str, list[Pictures]]) -> None:
    frames = np.concatenate([frames for drawn in lit.values() for frames, _ in drawn]) / 255
    events = np.concatenate([events for drawn in lit.values() for _, events in drawn]) / 255
    assert frames.mean() == pytest.approx(0.226, abs=0.03)
    assert frames.std(axis=(1, 2)).mean() == pytest.approx(0.119, abs=0.03)
    assert events.mean() == pytest.approx(0.504, abs=0.002)
    assert events.std(axis=(1, 2)).mean() == pytest.approx(0.069, abs=0.015)


def test_lightings_look_like_their_names(lit: dict[str, list[Pictures]]) -> None:
    frames = {name: np.concatenate([frames for frames, _ in drawn]) for name, drawn in lit.items()}
    assert np.mean(frames["overexposed"] == 255) > 0.10  # burnt out ...
    assert np.mean(frames["overexposed"] < 100) > 0.10  # ... with brow and eye left
    assert np.mean(frames["low-light"] < 25) > 0.98
    assert np.mean(frames["normal"] == 255) < 0.001
    assert 20 < frames["normal"].mean() < 90
    for clip, _ in lit["hdr"]:  # a lit and a dark half
        columns = np.sort(clip.mean(axis=(0, 1)))
        rows = np.sort(clip.mean(axis=(0, 2)))
        assert max(columns[-16:].mean() / columns[:16].mean(), rows[-16:].mean() / rows[:16].mean()) > 2


def test_event_pictures_are_ternary_and_noisier_in_low_light(lit: dict[str, list[Pictures]]) -> None:
    cheek = {}
    for name in LIGHTINGS:
        events = np.concatenate([events for _, events in lit[name]])
        assert set(np.unique(events)) == {0, 128, 255}
        assert 0.004 < np.mean(events != 128) < 0.06
        cheek[name] = np.mean(events[:, -10:] != 128)  # where little moves
    assert cheek["low-light"] > 1.5 * cheek["normal"]


def test_nothing_bursts_in_the_first_event_picture(lit: dict[str, list[Pictures]]) -> None:
    events = np.stack([events for drawn in lit.values() for _, events in drawn]) != 128  # (clips, pictures, H, W)
    assert events[:, 0].mean() < 2 * events[:, 1:].mean()


def test_crossed_relights_one_performance() -> None:
    settings = SyntheticSettings(subjects=1, sequences=1, design="crossed")
    face = draw_face(settings.seed, 1, settings.difficulty)
    plays = [play(clip, face, settings) for clip in plan(settings)]
    assert len(plays) == 4
    assert all(_same(plays[0], other) for other in plays)


def test_wearable_sessions_drift() -> None:
    settings = SyntheticSettings(subjects=1, design="wearable")
    face = draw_face(settings.seed, 1, settings.difficulty)
    seats = defaultdict(list)
    for clip in plan(settings):
        performance = play(clip, face, settings)
        seats[clip.session].append((performance.shift_x.mean(), performance.shift_y.mean()))
    means = np.array([np.mean(seat, axis=0) for seat in seats.values()])
    within = np.mean([np.std(seat, axis=0) for seat in seats.values()])
    assert means.std(axis=0).max() > 1.5 * within


def test_a_sequence_depends_on_its_own_keys_only() -> None:
    few, many = SyntheticSettings(subjects=4, sequences=7, size=32), SyntheticSettings(subjects=4, size=32)
    clip = plan(few)[5]
    alone = draw_clip(clip, few)
    for other in plan(many)[:3]:
        draw_clip(other, many)
    for one, again in zip(alone, draw_clip(clip, many), strict=True):
        np.testing.assert_array_equal(one, again)


def test_people_and_seeds_differ() -> None:
    settings = SyntheticSettings(subjects=3, size=32)
    clip = plan(settings)[0]
    first = draw_clip(clip, settings)[0]
    assert (first != draw_clip(replace(clip, subject=2), settings)[0]).mean() > 0.3
    assert (first != draw_clip(clip, replace(settings, seed=1))[0]).mean() > 0.3


def test_a_plain_pixel_classifier_tells_emotions_of_known_people() -> None:
    """Ridge regression on the last frame against the person's mean: what a network gets with far less."""
    settings = SyntheticSettings(subjects=12, size=32, seed=9100)
    features: list[NDArray[np.float64]] = []
    labels, takes = [], []
    for subject in range(1, 13):
        clips = _everything(subject, settings)
        frames = np.array([np.log(10.0 + draw_clip(clip, settings)[0][-4:].mean(axis=0)) for clip in clips])
        features.extend((frames - frames.mean(axis=0)).reshape(len(clips), -1))
        labels.extend(EMOTIONS.index(clip.emotion) for clip in clips)
        takes.extend(clip.take for clip in clips)
    x, y, first = np.array(features), np.array(labels), np.array(takes) < 3
    kernel = x @ x[first].T
    ridge = kernel[first] + 0.1 * np.trace(kernel[first]) / first.sum() * np.eye(int(first.sum()))
    weights = np.linalg.solve(ridge, np.eye(7)[y[first]] - 1 / 7)
    accuracy = np.mean((kernel[~first] @ weights).argmax(axis=1) == y[~first])
    assert accuracy > 0.40  # chance is 0.14


def test_expressions_blur_as_difficulty_grows() -> None:
    told = [_told_by_template(difficulty) for difficulty in (0.0, 1.0, 2.0, 3.5, 5.0)]
    assert told[0] > 0.99
    assert told == sorted(told, reverse=True)
    assert told[1] > told[3] + 0.03 > told[4] + 0.06


def test_clips_are_trimmed_to_the_expression() -> None:
    """From a quarter into a clip nearly every one shows its expression, and most hold it to the end."""
    shown = []
    for subject in range(60):
        face = draw_face(0, subject, 0.0)
        t = np.arange(160) / 90
        _, presence = contractions(stream("trimming", subject), face, "surprise", t, 0.0)
        shown.append(presence / presence.max())
    assert np.mean(np.array(shown)[:, 80] > 0.5) > 0.95
    assert 0.65 < np.mean(np.array(shown)[:, -1] > 0.99) < 0.95


def _everything(subject: int, settings: SyntheticSettings) -> list[Clip]:
    """Five short takes of every emotion in normal light."""
    model = plan(settings)[0]
    return [
        replace(model, subject=subject, emotion=emotion, take=take, length=20, lighting="normal")
        for emotion in EMOTIONS
        for take in range(5)
    ]


def _told_by_template(difficulty: float) -> float:
    """How often the template nearest to a take's strongest contractions is that of its emotion."""
    templates = np.array([TEMPLATES[emotion].units for emotion in EMOTIONS])
    t = np.arange(150) / 90
    hits = []
    for subject in range(40):
        face = draw_face(7, subject, difficulty)
        for index, emotion in enumerate(EMOTIONS):
            units, presence = contractions(stream("told", subject, emotion), face, emotion, t, difficulty)
            apex = units[:, int(presence.argmax())]
            hits.append(((templates - apex) ** 2).sum(axis=1).argmin() == index)
    return float(np.mean(hits))


def _same(one: Performance, other: Performance) -> bool:
    return all(
        np.array_equal(one.units[name], other.units[name]) for name in one.units
    ) and all(
        np.array_equal(getattr(one, field), getattr(other, field))
        for field in ("closure", "gaze_x", "gaze_y", "pupil", "shift_x", "shift_y", "roll", "scale")
    )  # fmt: skip
