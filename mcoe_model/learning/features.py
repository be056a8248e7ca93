"""Features of frozen backbones, computed once per picture and role and kept on disk; temporal sampling stays random.

The key is the generation (which holds the hash of the backbones' weights and buffers, and the normalisation) and the
hash of the decoded pictures: a model with other backbones, or other data, never reads another's features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from mcoe_model.data.cache import Clips
from mcoe_model.files import write_bytes
from mcoe_model.learning.samples import FeatureSamples, PictureSamples, Samples, encode_clip, encode_clips
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard
from mcoe_model.networks import MCOENet, Network


def cached_features(
    model: MCOENet, generation: Generation, clips: Clips, indices: Iterable[int], folder: Path
) -> FeatureSamples:
    """Features of these clips, read from ``folder`` or computed and put there, one file per clip.

    The model must be of this generation and in evaluation mode. Two processes that compute the same clip write the
    same bytes.
    """
    chosen = tuple(indices)
    here = folder / hashlib.sha256(f"{generation.id}/{clips.sha256}".encode()).hexdigest()[:32]
    streams = []
    for index in chosen:
        path = here / f"{clips.records[index].name}.safetensors"
        if not path.exists():
            encoded = encode_clip(model, clips, index, generation.normalisation)
            write_bytes(path, bytes(save({".".join(stream): values for stream, values in encoded.items()})))
        stored = load_file(path)
        streams.append({(name.split(".")[0], name.split(".")[1]): values for name, values in stored.items()})
    labels = np.array([clips.records[index].class_index for index in chosen], np.int64)
    return FeatureSamples(tuple(clips.records[index].name for index in chosen), labels, tuple(streams))


def frozen_samples(
    model: Network, generation: Generation, clips: Clips, indices: Iterable[int], folder: Path
) -> Samples:
    """Clips for a head over frozen backbones: as `cached_features`, or as pictures for a model of whole windows."""
    if isinstance(model, MCOENet):
        return cached_features(model, generation, clips, indices, folder)
    return PictureSamples(clips, tuple(indices), generation.normalisation)


def fixed_samples(model: Network, generation: Generation, clips: Clips, indices: Iterable[int]) -> Samples:
    """Clips to evaluate a model on whose features nobody keeps: computed once and held in memory, where it has any."""
    if isinstance(model, MCOENet):
        return encode_clips(model, clips, indices, generation.normalisation)
    return PictureSamples(clips, tuple(indices), generation.normalisation)


def every_clip(model: Network, card: ModelCard, clips: Clips, folder: Path) -> Samples:
    """Every clip for evaluation: features from ``folder``, or computed anew once the backbones have been trained on.

    A lineage that trains its backbones keeps the generation of its first model, and the cache is by generation.
    """
    indices = range(len(clips.records))
    if backbone_sha256(tensors_of(model)) != card.generation.backbone_sha256:
        return fixed_samples(model, card.generation, clips, indices)
    return frozen_samples(model, card.generation, clips, indices, folder)
