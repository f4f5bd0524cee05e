"""FTCP (Ren et al. 2022): a 1D convolutional VAE on the FTCP representation.

The paper finds that it reconstructs nearly perfectly, and that nearly nothing that it generates is
a crystal: a matrix between two matrices of crystals need not be one. What it gives back are
crystals like those it has learnt; after few of them it gets the elements of unknown ones wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import Dataset

from cdvae_core.baseline_configs import FTCPConfig
from cdvae_core.baselines.ftcp_representation import (
    PROPERTIES,
    columns,
    element_properties,
    invert,
    represent,
    rows,
)
from cdvae_core.baselines.protocol import Baseline, Batch, Made
from cdvae_core.crystal import MAX_ATOMIC_NUMBER, CrystalBatch
from cdvae_core.data.cache import CachedSplit
from cdvae_core.errors import ConfigError
from cdvae_core.optimise import Goal, ascend
from cdvae_core.scalers import CONSTANT_STD, Scalers

_AT_ONCE = 256
_BATCH = 256  # of the published code, which sums errors over it and averages the divergence


class FTCP(Baseline):
    """The network, and the scaling of its matrices.

    Buffers: `low` and `span`, `[rows, 1]`, of each row over the training data; the property's least
    value, range, mean and standard deviation; the elements' properties.
    """

    config: FTCPConfig
    properties: Tensor
    low: Tensor
    span: Tensor
    prop_low: Tensor
    prop_span: Tensor
    prop_mean: Tensor
    prop_std: Tensor

    def __init__(self, config: FTCPConfig) -> None:
        super().__init__(config)
        c, wide, length = config.channels, columns(config), rows(config) // 4
        self.encoder = nn.Sequential(
            nn.Conv1d(wide, c, 5, 2, 2), nn.BatchNorm1d(c), nn.LeakyReLU(0.2),
            nn.Conv1d(c, 2 * c, 3, 2, 1), nn.BatchNorm1d(2 * c), nn.LeakyReLU(0.2),
            nn.Conv1d(2 * c, 4 * c, 3, 1, 1), nn.BatchNorm1d(4 * c), nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(4 * c * length, config.dense_hidden), nn.ReLU(),
        )  # fmt: skip
        self.mu = nn.Linear(config.dense_hidden, config.latent_dim)
        self.log_var = nn.Linear(config.dense_hidden, config.latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(config.latent_dim, 4 * c * length), nn.ReLU(),
            nn.Unflatten(1, (4 * c, length)), nn.BatchNorm1d(4 * c),
            nn.ConvTranspose1d(4 * c, 2 * c, 3, 1, 1), nn.BatchNorm1d(2 * c), nn.ReLU(),
            nn.ConvTranspose1d(2 * c, c, 3, 2, 1, 1), nn.BatchNorm1d(c), nn.ReLU(),
            nn.ConvTranspose1d(c, wide, 5, 2, 2, 1), nn.Sigmoid(),
        )  # fmt: skip
        self.fc_property = None
        if config.prop is not None:
            self.fc_property = nn.Sequential(
                nn.ReLU(), nn.Linear(config.latent_dim, 128), nn.ReLU(),
                nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid(),
            )  # fmt: skip
        self.register_buffer("properties", torch.zeros(MAX_ATOMIC_NUMBER + 1, PROPERTIES))
        self.register_buffer("low", torch.zeros(rows(config), 1))
        self.register_buffer("span", torch.ones(rows(config), 1))
        for name in ("prop_low", "prop_mean"):
            self.register_buffer(name, torch.zeros(()))
        for name in ("prop_span", "prop_std"):
            self.register_buffer(name, torch.ones(()))

    @classmethod
    def build(cls, config: FTCPConfig, train: CachedSplit) -> FTCP:
        """The network with the scaling of a training split.

        Raises:
            ConfigError: a crystal has more elements than there are columns.
        """
        most = max(len(set(train.crystal(i).atomic_numbers.tolist())) for i in range(len(train)))
        if most > config.max_elements:
            raise ConfigError(
                f"model.max_elements is {config.max_elements}, but a crystal has {most} elements"
            )
        model = cls(config)
        model.properties = element_properties()
        ends = [(m.amin((0, 2)), m.amax((0, 2))) for m in model._matrices(train)]
        least, greatest = (torch.stack(side) for side in zip(*ends, strict=True))
        model.low = least.amin(0)[:, None]
        span = greatest.amax(0)[:, None] - model.low
        model.span = torch.where(span > 0, span, 1.0)
        if config.prop is not None:
            known = torch.tensor(train.properties[config.prop]).float()
            known = known[~known.isnan()]
            model.prop_low, model.prop_span = known.min(), known.max() - known.min() + CONSTANT_STD
            model.prop_mean, model.prop_std = known.mean(), known.std() + CONSTANT_STD
        return model

    def _matrices(self, split: CachedSplit) -> Iterator[Tensor]:
        for first in range(0, len(split), _AT_ONCE):
            places = range(first, min(first + _AT_ONCE, len(split)))
            yield represent(split.batch(places).crystals, self.properties, self.config)

    def examples(self, split: CachedSplit) -> Dataset[Batch]:
        return _Examples(split, self.config.prop)

    def losses(
        self, batch: Batch, generator: torch.Generator, progress: float
    ) -> dict[str, Tensor]:
        """Squared errors of matrix and property, and the divergence averaged over the latent."""
        wanted = self._scaled(CrystalBatch(*(batch[f.name] for f in fields(CrystalBatch))))
        mu, log_var = self.encode(wanted)
        noise = torch.randn(mu.shape, generator=generator, device=mu.device)
        out = self.decoder(mu + noise * (log_var / 2).exp())
        kl = -(1 + log_var - mu.square() - log_var.exp()).mean(1).mean() / 2
        losses = {
            "matrix": (out.mT - wanted).square().sum((1, 2)).mean(),
            "kl": self.config.kl_weight / _BATCH * kl,
        }
        if self.fc_property is not None:
            prop = (batch["prop"] - self.prop_low) / self.prop_span
            error = (self.fc_property(mu).squeeze(-1) - prop).square()
            known = ~prop.isnan()
            mean = error.where(known, 0.0).sum() / known.sum().clamp(min=1)
            losses["prop"] = self.config.prop_weight * mean
        return losses

    def _scaled(self, crystals: CrystalBatch) -> Float[Tensor, "crystals rows columns"]:
        matrix = represent(crystals, self.properties, self.config)
        return (matrix - self.low) / self.span

    def encode(self, scaled: Float[Tensor, "crystals rows columns"]) -> tuple[Tensor, Tensor]:
        """Mean and log variance of z, `[crystals, latent]`."""
        hidden = self.encoder(scaled.mT)
        return self.mu(hidden), self.log_var(hidden).clamp(-20, 20)

    def decode(self, z: Float[Tensor, "crystals latent"]) -> Iterator[Made]:
        """The crystal of each latent."""
        for part in z.split(_AT_ONCE):
            with torch.no_grad():
                matrices = self.decoder(part).mT * self.span + self.low
            yield from (invert(matrix, self.config) for matrix in matrices)

    @property
    def scalers(self) -> Scalers:
        """Of the property alone, for `optimise.Goal`."""
        return Scalers(prop_mean=float(self.prop_mean), prop_std=float(self.prop_std))

    def predict_property(self, z: Float[Tensor, "crystals latent"]) -> Float[Tensor, " crystals"]:
        """In the property's unit, within the range of the training data."""
        assert self.fc_property is not None
        return self.fc_property(z).squeeze(-1) * self.prop_span + self.prop_low

    def sample(self, count: int, generator: torch.Generator) -> Iterator[Made]:
        shape = (count, self.config.latent_dim)
        yield from self.decode(torch.randn(shape, generator=generator, device=self.device))

    def reconstruct(
        self, split: CachedSplit, places: Sequence[int], generator: torch.Generator
    ) -> Iterator[Made]:
        """From the mean of z; nothing is drawn."""
        yield from self.decode(self._latents(split, places))

    def optimise(
        self,
        split: CachedSplit,
        places: Sequence[int],
        goal: Goal,
        kept: int,
        generator: torch.Generator,
    ) -> Iterator[list[Made]]:
        """Gradient ascent on the property head, as for CDVAE (G.3); nothing is drawn."""
        for here in ascend(self, self._latents(split, places), goal, kept=kept):
            if here.kept:
                yield list(self.decode(here.z))

    def _latents(self, split: CachedSplit, places: Sequence[int]) -> Tensor:
        found = []
        with torch.no_grad():
            for first in range(0, len(places), _AT_ONCE):
                crystals = split.batch(places[first : first + _AT_ONCE]).crystals
                found.append(self.encode(self._scaled(crystals.to(self.device)))[0])
        return torch.cat(found)


@dataclass(frozen=True)
class _Examples(Dataset):
    split: CachedSplit
    prop: str | None

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, places: list[int]) -> Batch:
        batch = self.split.batch(places, self.prop)
        crystals = {f.name: getattr(batch.crystals, f.name) for f in fields(CrystalBatch)}
        return {"prop": batch.prop, **crystals}  # first what has one row for each crystal
