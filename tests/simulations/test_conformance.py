"""The conformance check: the examples have every property, and each property finds what lacks it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from own_clips import write_clips

from mcoe_model.errors import SettingsError
from mcoe_model.networks import PRESETS
from server.aggregation import RULES
from simulations import own
from simulations.conform import check, models, rules
from simulations.conform.properties import tried
from simulations.conformance import main

EXAMPLES = Path(__file__).parents[2] / "examples"
RULE = """
import numpy as np
from server.aggregation.rule import Rule, weighted_sum

class Mine(Rule):
    name = "mine"
    rounds = 0

    def plan(self, shared, settings, reference):
        self.rounds += 1
        return lambda block: self.combined(block)

    def combined(self, block):
        return weighted_sum(block, [1 / len(block.senders)] * len(block.senders))
"""
DRAW = """
import numpy as np

class Mine:
    name, channels, background = "mine", 1, 0

    def draw(self, events, start_us, end_us, shape):
        picture = np.zeros((1, *shape), np.uint8)
        picture[0, events["y"], events["x"]] = 255
        return picture
"""
MODEL = (EXAMPLES / "small_network.py").read_text().replace("SmallConfig", "Mine")
METHOD = (EXAMPLES / "anchored_head.py").read_text().replace("AnchoredHead", "Mine")
READER = (EXAMPLES / "npz_clips.py").read_text().replace("NpzClips", "Mine")

#: Kind, the code, what is changed in it, and the properties that it then lacks.
BROKEN = [
    ("rule", RULE, "1 / len(block.senders)", "self.rounds / len(block.senders)", {"remembers nothing"}),
    ("rule", RULE, "weighted_sum(block, [1 /", "weighted_sum(block, [np.nan /", {"and is finite"}),
    ("rule", RULE, "return weighted_sum", "return None; weighted_sum", {"moves every tensor"}),
    ("rule", RULE, "return weighted_sum(block,",
     "return ((s, r.mean(axis=0) + r[:, 0].mean()) for s, r in block.chunks()); (block,", {"chunks of any size"}),
    ("rule", RULE, "return weighted_sum(block,",
     "return ((s, 1 + np.float64(r).mean(axis=0)) for s, r in block.chunks()); (block,", {"when nobody changed"}),
    ("rule", RULE, 'name = "mine"', "name = 3", {"says its name"}),
    ("representation", DRAW, "np.uint8)", "np.float32)", {"gives pictures"}),
    ("representation", DRAW, "(1, *shape)", "shape", {"gives pictures"}),
    ("representation", DRAW, '"mine", 1, 0', '"mine", 1, 128', {"shows the background"}),
    ("representation", DRAW, "return picture", "picture[0, 0, 0] = start_us % 251; return picture", {"of the day"}),
    ("representation", DRAW, "return picture", 'events["x"] = 0; return picture', {"leaves the events"}),
    ("representation", DRAW, "= 255", "= np.random.randint(1, 255)", {"same bits"}),
    ("representation", DRAW, "= 255", '= np.where(events["polarity"] > 0, 255, 0)', {"shows an event where it was"}),
    ("representation", DRAW, '"mine", 1, 0', '"mine", 4, 0', {"says its name"}),
    ("model", MODEL, "nn.Linear(4 * 32,", "nn.Linear(32,", {"answers with finite logits"}),
    ("model", MODEL, "torch.cat(features, dim=1)", "torch.cat(features, dim=1).detach()", {"has a gradient"}),
    ("model", MODEL, "three_channels(pictures)", "pictures[:, None].expand(-1, 3, -1, -1)", {"three channels"}),
    ("model", MODEL, "self.classifier(torch", "self.classifier(torch.rand(1) * torch", {"the same of a window"}),
    ("model", MODEL, "self.backbones", "self.layers", {"its parts under their names"}),
    ("model", MODEL, "self.classifier = ", "self.extra = nn.Linear(2, 2); self.classifier = ", {"has a gradient"}),
    ("model", MODEL, "top_k: int = 0", "top_k: int = 2", {"says its name", "answers with"}),
    ("model", MODEL, "self.classifier(torch.cat(features, dim=1))",
     "self.classifier(torch.cat(features, dim=1) - torch.cat(features, dim=1).mean(dim=0))", {"the same of a window"}),
    ("method", METHOD, "for value in self._anchor.values())", "for value in self._anchor.values()) * 3", {"its limit"}),
    ("method", METHOD, "STRENGTH / 2 *", "float('inf') *", {"every value finite"}),
    ("method", METHOD, "return Pull(self._anchor)", "return 3", {"gives a method"}),
    ("method", METHOD, "return STRENGTH / 2", "return __import__('time').time() % 1", {"the same bits"}),
    ("method", METHOD, "        return self\n", "        samples.labels[:] = 0; return self\n", {"leaves the clips"}),
    ("data-reader", READER, "sorted(self.root", "list(__import__('random').sample(sorted(self.root", {"SyntaxError"}),
    ("data-reader", READER, "parse_emotion(emotion)", '"joy"', {"are sound"}),
    ("data-reader", READER, "fingerprint.hexdigest()", "str(id(records))", {"same fingerprint"}),
    ("data-reader", READER, '"training", 0', '"training", 3', {"fit together"}),
    ("data-reader", READER, 'list(stored["frames"])', 'list(stored["frames"])[:-1]', {"fit together"}),
    ("data-reader", READER, 'list(stored["frames"])', 'list(stored["frames"].astype("f4"))', {"fit together"}),
]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("own") / "clips")


@pytest.mark.parametrize(("kind", "code", "before", "after", "lacking"), BROKEN)
def test_what_is_broken_is_found(
    clips: Path, tmp_path: Path, kind: str, code: str, before: str, after: str, lacking: set[str]
) -> None:
    assert before in code
    (tmp_path / "mine.py").write_text(code.replace(before, after))
    found = own.locate(kind, f"{tmp_path}/mine.py:Mine")
    data = clips if kind == "data-reader" else None
    if lacking == {"SyntaxError"}:
        with pytest.raises(SettingsError, match="SyntaxError"):
            check(found, data)
        return
    said = {one.property: one.fault for one in check(found, data) if one.fault}
    assert all("\n" not in fault for fault in said.values())
    for name in lacking:
        assert any(name in property_of for property_of in said), said


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if not rule.needs_reference])
@pytest.mark.parametrize("property_of", rules.PROPERTIES)
def test_our_rules_have_every_property(name: str, property_of: str) -> None:
    assert not tried(property_of, rules.PROPERTIES[property_of], lambda: RULES[name]).fault


@pytest.mark.parametrize("property_of", models.PROPERTIES)
def test_our_smallest_model_has_every_property(property_of: str) -> None:
    assert not tried(property_of, models.PROPERTIES[property_of], lambda: PRESETS["mcoe-tiny"]).fault


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("rule", "geometric_median.py:GeometricMedian"),
        ("representation", "newest_polarity.py:NewestPolarity"),
        ("data-reader", "npz_clips.py:NpzClips"),
        ("model", "small_network.py:SmallConfig"),
        ("method", "anchored_head.py:AnchoredHead"),
    ],
)
def test_the_examples_are_told_to_be_sound(
    clips: Path, capsys: pytest.CaptureFixture[str], kind: str, code: str
) -> None:
    path = EXAMPLES / code.partition(":")[0]
    assert len(path.read_text().splitlines()) <= 60
    main([kind, f"{EXAMPLES / code}", "--json", *(["--data", str(clips)] if kind == "data-reader" else [])])
    *lines, as_json = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok ") for line in lines) and len(json.loads(as_json)) == len(lines)


def test_a_property_that_is_lacking_ends_with_a_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text(DRAW.replace("= 255", "= 0"))
    with pytest.raises(SystemExit) as ended:
        main(["representation", f"{tmp_path}/mine.py:Mine"])
    assert ended.value.code == 1
    assert "FAILED  shows an event where it was" in capsys.readouterr().out
    with pytest.raises(SettingsError, match="add --data"):
        main(["data-reader", f"{EXAMPLES}/npz_clips.py:NpzClips"])
