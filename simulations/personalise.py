"""Fitting the fleet's model to one wearer without training, from the wearer's own labelled clips.

- *Class priors*: p(y) of the wearer in place of p(y) as the model sees it, as Saerens et al. 2002
  (https://doi.org/10.1162/089976602753284446, equation 2.4) with the wearer's labels counted, not estimated.
- *Mixture weights*: the share that each expert has in the wearer's clips, one step of expectation maximisation from the
  model's own; in the spirit of pFedMM's clients' weights pi_k. Differs: our router is a function of the clip, so the
  step multiplies its gate by pi_e / (mean gate), which is a constant added to the router's last bias.

Letters: n clips, E experts, c classes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcoe_model.learning.evaluate import Predictions, evaluate
from mcoe_model.learning.fine_tune import middle_window
from mcoe_model.learning.samples import Samples
from mcoe_model.names import EMOTIONS
from mcoe_model.networks import MCOENet, Network

#: Clips' worth of the model's own opinion that the counts of a wearer's clips are added to.
PRIOR_CLIPS = 7.0


def with_class_priors(model: Network, own: Samples, said: Predictions) -> Predictions:
    """What the model says, ``said``, with the class priors of the wearer's own clips."""
    believed = evaluate(model, own).mean_softmax().mean(axis=0)  # (c,)
    counts = np.bincount(own.labels, minlength=len(EMOTIONS)) + PRIOR_CLIPS * believed
    shift = np.log(counts / counts.sum()) - np.log(believed)  # (c,)
    logits = (said.logits + shift).astype(np.float32)
    return Predictions(said.names, said.labels, said.clip, said.window, said.probability, logits, said.chosen)


def use_mixture_weights(model: MCOENet, own: Samples) -> None:
    """Change the router's last bias in place to the mixture weights of the wearer's own clips."""
    gate, likelihood = _experts(model, own)  # (n, E) twice
    joint = gate * likelihood
    weights = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)  # (E,) pi
    change = np.log(np.maximum(weights, 1e-6)) - np.log(np.maximum(gate.mean(axis=0), 1e-6))
    with torch.no_grad():
        model.moe.router.down.bias.add_(torch.from_numpy(change.astype(np.float32)))


def _experts(model: MCOENet, own: Samples) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For the middle window of each clip: the gate, and what each expert alone gives the true class; (n, E) twice."""
    inputs: list[Tensor] = []
    hook = model.moe.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    positions = list(range(len(own.names)))
    windows = np.stack([middle_window(model.config.sampling, length) for length in own.lengths])
    try:
        with torch.inference_mode():
            _, routing = model.classify(own.head_inputs(model, positions, windows, None))
            chances = model.moe.all_experts(inputs[0]).softmax(dim=2)  # (n, E, c)
    finally:
        hook.remove()
    true = chances[torch.arange(len(positions)), :, torch.from_numpy(own.labels)]  # (n, E)
    return routing.gate.double().numpy(), true.double().numpy()
