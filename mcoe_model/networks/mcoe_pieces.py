"""MCO-E Net's published parameters by name, and where each goes in `MCOENet`.

Names as in the authors' released code, https://github.com/hrdhrd/MCO-E-Net. Where ours are arranged differently, a
published tensor goes to a slice of one of ours, or its slices to two of ours (what acts, and what is dead).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcoe_model.networks.hce_moe import AttentionExpert, ConvolutionExpert
from mcoe_model.networks.pieces import Piece, layer

if TYPE_CHECKING:  # the model asks for its pieces
    from mcoe_model.networks.mcoe import MCOENet

_MODALITIES = ("rgb", "event")
_BACKBONES = {"res00": "frame_first", "res01": "frame_last", "res10": "event_first", "res11": "event_last"}


def pieces(model: MCOENet) -> list[Piece]:
    """Every published tensor and where it goes in ``model``, in the order of the published state dict's modules."""
    found = [
        Piece(f"{theirs}.resnet.{name}", f"backbones.{ours}.{name}")
        for theirs, ours in _BACKBONES.items()
        for name in model.backbones[ours].state_dict()
    ]
    found += _mamba_pieces(model.mamba.states)
    for theirs, ours in (("proj_rgb.", "frame."), ("proj_event.", "event."), ("attn.in_proj_", "in_proj.")):
        found += [Piece(f"MCIB.{theirs}{kind}", f"fusion.{ours}{kind}") for kind in ("weight", "bias")]
    found += layer("MCIB.attn.out_proj", "fusion.out_proj")
    for number, expert in enumerate(model.moe.experts):
        theirs, ours, dead = f"moe.experts.expert_{number}", f"moe.experts.{number}", f"dead.expert_{number}"
        if isinstance(expert, ConvolutionExpert):
            found.append(Piece(f"{theirs}.0.weight", f"{ours}.up.weight", theirs_at=(..., 1)))
            found.append(Piece(f"{theirs}.0.weight", f"{dead}_outer_taps", theirs_at=(..., slice(0, None, 2))))
            found.append(Piece(f"{theirs}.0.bias", f"{ours}.up.bias"))
            found.append(Piece(f"{theirs}.2.weight", f"{ours}.classifier.weight", theirs_at=(..., 0), by_emotion=True))
            found.append(Piece(f"{theirs}.2.bias", f"{ours}.classifier.bias", by_emotion=True))
        elif isinstance(expert, AttentionExpert):
            found += _attention_pieces(f"{theirs}.attn", f"{ours}.attention", dead, model.config.hidden)
            found += layer(f"{theirs}.norm", f"{ours}.norm")
            found += layer(f"{theirs}.fc", f"{ours}.classifier", by_emotion=True)
        else:
            found.append(Piece(f"{theirs}.res_coef", f"{ours}.shortcut"))
            for block in range(model.config.deep_blocks):
                found += layer(f"{theirs}.layers.{block}.0", f"{ours}.blocks.{block}.up")
                found += layer(f"{theirs}.layers.{block}.2", f"{ours}.blocks.{block}.down")
            found += layer(f"{theirs}.final_fc", f"{ours}.classifier", by_emotion=True)
    found += _attention_pieces("moe.router.self_attn", "moe.router.attention", "dead.router", model.config.hidden)
    found += layer("moe.router.mlp.0", "moe.router.up") + layer("moe.router.mlp.2", "moe.router.down")
    found += layer("moe.router.norm", "moe.router.norm") + layer("fusion_proj.0", "projection")
    return found + [Piece(f"output.{kind}", f"dead.output_{kind}") for kind in ("weight", "bias")]


def _attention_pieces(theirs: str, ours: str, dead: str, size: int) -> list[Piece]:
    """Packed projections, whose first two thirds (queries and keys) cannot act over a sequence of length one."""
    found = []
    for kind in ("weight", "bias"):
        packed = f"{theirs}.in_proj_{kind}"
        found.append(Piece(packed, f"{ours}.value.{kind}", theirs_at=(slice(2 * size, None),)))
        found.append(Piece(packed, f"{dead}_query_key_{kind}", theirs_at=(slice(None, 2 * size),)))
    return found + layer(f"{theirs}.out_proj", f"{ours}.out")


def _mamba_pieces(states: int) -> list[Piece]:
    """The published block has a tensor for each direction (``b`` backward) and modality where ours has two axes."""
    found = []

    def add(theirs: str, ours: str, *at: int | slice) -> None:
        found.append(Piece(f"MCO.cross_matrix_mamba.{theirs}", ours, ours_at=at or (...,)))

    for r, b in enumerate(("", "_b")):
        for m, modality in enumerate(_MODALITIES):
            add(f"A{b}_log_{modality}", "mamba.A_log", r, m)
            add(f"D{b}_{modality}", "mamba.skip", r, m)
            add(f"conv1d{b}_{modality}.weight", "mamba.conv_weight", r, m)
            add(f"conv1d{b}_{modality}.bias", "mamba.conv_bias", r, m)
            add(f"x_proj{b}_{modality}.weight", "mamba.x_proj", r, m)
            add(f"dt_proj{b}_{modality}.weight", "mamba.dt_weight", r, m)
        add(f"x_proj{b}_peep.weight", "mamba.joint", r, slice(None, states))
        add(f"x_proj{b}_Cpeep.weight", "mamba.joint", r, slice(states, None))
    for m, modality in enumerate(_MODALITIES):
        add(f"in_proj_{modality}.weight", "mamba.in_proj", m)
        add(f"out_proj_{modality}.weight", "mamba.out_proj", m)
        add(f"dt_proj_{modality}.bias", "mamba.dt_bias", m)
        add(f"dt_proj_b_{modality}.bias", "dead.mamba_dt_bias_backward", m)
        add(f"norm_{modality}.weight", "dead.mamba_norm_weight", m)
        add(f"norm_{modality}.bias", "dead.mamba_norm_bias", m)
    add("in_proj_extra.weight", "dead.mamba_in_proj_extra")
    for number in (0, 2):
        for kind in ("weight", "bias"):
            add(f"fusion_gate.{number}.{kind}", f"dead.mamba_gate_{number}_{kind}")
    return found
