"""A 3D U-Net that says which element each voxel of a density belongs to (Court et al. 2020).

It has two heads: whether a voxel is a site's, and of which element. Its features on the way down
are also what the VAE's perceptual loss compares.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from cdvae_core.crystal import MAX_ATOMIC_NUMBER

OCCUPIED = 0.8  # the probability from which a voxel is a site's, as published


class UNet3d(nn.Module):
    """Two convolutions at each resolution, widths doubling on the way down.

    Args:
        width: channels of the first convolution; 32 in the publication.
        levels: how many times the resolution is halved; 3 in the publication.
    """

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        last = [width * 2 ** (level + 1) for level in range(levels)]  # 64, 128, 256
        into = [4, *last]
        bottom = 2 * last[-1]
        self.down = nn.ModuleList(
            _Pair(i, width * 2**level, o)
            for level, (i, o) in enumerate(zip(into[:-1], last, strict=True))
        )
        self.bottom = _Pair(last[-1], bottom, bottom)
        rising = [bottom, *reversed(last)]  # 512, 256, 128, 64
        out = [*rising[1:-1], rising[-2]]  # 256, 128, 128
        self.up = nn.ModuleList(
            _Pair(skip + below, 2 * skip, o)
            for skip, below, o in zip(rising[1:], [bottom, *out[:-1]], out, strict=True)
        )
        self.occupied = nn.Conv3d(out[-1], 1, 1)
        self.species = nn.Linear(out[-1], MAX_ATOMIC_NUMBER + 1)

    def features(
        self, channels: Float[Tensor, "crystals 4 voxels voxels voxels"]
    ) -> list[Float[Tensor, "crystals width x y z"]]:
        """What the second convolution of each resolution sees, from the finest to the bottom."""
        return self._descend(channels)[1]

    def forward(
        self, channels: Float[Tensor, "crystals 4 voxels voxels voxels"]
    ) -> tuple[
        Float[Tensor, "crystals voxels voxels voxels"],
        Float[Tensor, "crystals voxels voxels voxels width"],
    ]:
        """The logit of being occupied, and what the head of species takes."""
        skips, _ = self._descend(channels)
        h = skips.pop()
        for pair in self.up:
            h = F.interpolate(h, scale_factor=2.0)
            h, _ = pair(torch.cat([skips.pop(), h], 1))
        return self.occupied(h).squeeze(1), h.movedim(1, -1)

    def losses(
        self,
        channels: Float[Tensor, "crystals 4 voxels voxels voxels"],
        species: Int[Tensor, "crystals voxels voxels voxels"],
    ) -> dict[str, Tensor]:
        """Binary cross-entropy of the mask, and cross-entropy of the species of occupied voxels.

        The published cross-entropy has the background as one more class and means to weigh classes
        by their inverse frequency, which in its code is one number for all. Here the mask alone
        tells background, and every occupied voxel counts the same.
        """
        logit, h = self(channels)
        held = species > 0
        return {
            "mask": F.binary_cross_entropy_with_logits(logit, held.to(logit.dtype)),
            "species": F.cross_entropy(self.species(h[held]), species[held]),
        }

    @torch.no_grad()
    def segment(
        self, channels: Float[Tensor, "crystals 4 voxels voxels voxels"]
    ) -> Int[Tensor, "crystals voxels voxels voxels"]:
        """The likeliest atomic number of each occupied voxel, 0 elsewhere."""
        logit, h = self(channels)
        held = logit.sigmoid() >= OCCUPIED
        species = torch.zeros(logit.shape, dtype=torch.long, device=logit.device)
        species[held] = self.species(h[held])[:, 1:].argmax(-1) + 1
        return species

    def _descend(self, channels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What each resolution hands on, and its features."""
        handed: list[Tensor] = []
        features: list[Tensor] = []
        h = channels
        for pair in (*self.down, self.bottom):
            h, seen = pair(h if not handed else F.max_pool3d(h, 2))
            handed.append(h)
            features.append(seen)
        return handed, features


class _Pair(nn.Module):
    """Convolution, ReLU and norm, twice."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv3d(i, o, 3, padding=1) for i, o in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm3d(o) for o in widths[1:])

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The output, and what was there before the last norm."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            seen = convolution(h).relu()
            h = norm(seen)
        return h, seen
