"""Golden arrays as our networks see them: published names on one side, our parameters on the other."""

from pathlib import Path

import numpy as np
import torch

from mcoe_model.names import EMOTIONS
from mcoe_model.networks import McoeConfig, MCOENet, from_published
from mcoe_model.networks.mcoe_pieces import pieces

FOLDER = Path(__file__).parent.parent / "golden"


def arrays(name):
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files if file[key].dtype.kind != "U"}


def small_published_model(**sizes):
    """A model of the published structure, small where a test does not say otherwise."""
    smallest = {
        "width": 2, "blocks": (1, 1, 1, 1), "features": 8, "hidden": 16, "router_hidden": 8, "convolution_hidden": 8,
        "deep_hidden": 8, "deep_blocks": 5,
    }  # fmt: skip
    return MCOENet(McoeConfig("small", **(smallest | sizes)))


def published_state(model):
    """The model's weights under their published names: what `from_published` reads."""
    own = model.state_dict()
    state = {}
    for piece in pieces(model):
        part = own[piece.ours][piece.ours_at]
        if piece.theirs_at == (..., 1):  # the middle of three taps
            state[piece.theirs] = part[..., None].repeat(1, 1, 3)
        elif piece.theirs_at == (..., 0):
            state[piece.theirs] = part[..., None].clone()
        elif piece.theirs_at == (...,):
            state[piece.theirs] = part.clone()
        elif piece.theirs_at == (..., slice(0, None, 2)):
            state[piece.theirs][piece.theirs_at] = part
        else:  # values, then queries and keys: one packed tensor
            packed = state.setdefault(piece.theirs, torch.zeros(3 * model.config.hidden, *part.shape[1:]))
            packed[piece.theirs_at] = part
    return state


def load(model, golden, *, prefix):
    """Load the golden parameters whose published names start with ``prefix``, leaving the others as they are."""
    state = published_state(model)
    given = {f"{prefix}{name[2:]}": values for name, values in golden.items() if name.startswith("p/")}
    assert given.keys() <= state.keys()
    from_published(state | given, model, label_order=EMOTIONS)


def assert_close(actual, expected, tolerance=1e-5, note=""):
    """Largest difference relative to the largest value."""
    assert actual.shape == expected.shape, note
    error = (actual.detach() - expected).abs().max() / expected.abs().max().clamp(min=1e-30)
    assert error <= tolerance, f"{note}: relative error {error:.2e}"


def assert_gradients(model, golden, *, prefix, tolerance=1e-5):
    """Each golden parameter gradient equals ours; where it is zero for dead tensors, ours do not exist."""
    parameters = dict(model.named_parameters())
    expected = {f"{prefix}{name[7:]}": values for name, values in golden.items() if name.startswith("grad/p/")}
    checked = set()
    for piece in pieces(model):
        if piece.theirs not in expected:
            continue
        wanted = expected[piece.theirs][piece.theirs_at]
        checked.add(piece.theirs)
        if piece.ours.startswith("dead."):
            assert parameters[piece.ours].grad is None and wanted.abs().max() < 1e-6, piece.theirs
        else:
            assert_close(parameters[piece.ours].grad[piece.ours_at], wanted, tolerance, piece.theirs)
    assert checked == expected.keys() and checked
