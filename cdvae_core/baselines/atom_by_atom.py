"""Structures built atom by atom: the orders to learn from, the losses, and the sampler.

A structure is its sites: the atoms and, for a finite cluster, first the origin. It grows around a
focus. At each step the network says what atom comes next near the focus, or that the focus is
finished, and how far the next atom is from each site; then another atom that is not finished
becomes the focus. G-SchNet and P-G-SchNet differ in what a distance is, in how it begins and ends,
and in the places that can be taken.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from cdvae_core.baseline_configs import GSchNetConfig
from cdvae_core.baselines.placements import (
    choose,
    draw_states,
    is_atom,
    nearest,
    needed_reach,
    with_focus,
)
from cdvae_core.baselines.protocol import Baseline, Batch, Made
from cdvae_core.baselines.schnet import ABSENT, ORIGIN, STOP, NextAtom
from cdvae_core.crystal import Crystal
from cdvae_core.data.cache import CachedSplit
from cdvae_core.errors import StructureError

TEMPERATURE = 0.1  # of the choice between places
_AT_ONCE = 128


class Space(ABC):
    """The sites of one structure that grows, in the order in which they were placed.

    Attributes:
        most: atoms.
        own_image: Å, see `with_focus`.
    """

    most: int
    own_image: float

    @abstractmethod
    def candidates(self, focus: int) -> Float[Tensor, "nodes candidates"]:
        """Places that the next atom can take: their distances in Å to the focus and to each site.

        Raises:
            StructureError: there are none.
        """

    @abstractmethod
    def place(self, candidate: int) -> None:
        """Take one of the candidates that were given last."""

    @abstractmethod
    def crystal(self, numbers: Sequence[int]) -> Crystal:
        """The crystal of all that was placed.

        Raises:
            StructureError: there is none.
        """


class Growth:
    """Structures that grow side by side.

    Attributes:
        numbers, distance, own_image: see `AtomByAtom.sites`; `ABSENT` for what is yet to come.
        finished: `[structures, sites]`.
        failed: why a structure was given up.
    """

    def __init__(self, spaces: list[Space], model: AtomByAtom) -> None:
        device, self.periodic = model.device, model.periodic
        self.spaces, self.tokens = spaces, 0 if model.periodic else 1
        self.most = torch.tensor([space.most for space in spaces], device=device)
        shape = (len(spaces), self.tokens + int(self.most.max()))
        self.numbers = torch.full(shape, ABSENT, device=device)
        self.numbers[:, : self.tokens] = ORIGIN
        self.distance = torch.zeros(*shape, shape[1], device=device)
        self.own_image = torch.tensor([space.own_image for space in spaces], device=device)
        self.finished = torch.zeros(shape, dtype=torch.bool, device=device)
        self.failed: dict[int, StructureError] = {}

    def unfinished(self) -> Bool[Tensor, "structures sites"]:
        """Atoms that can be the focus."""
        return is_atom(self.numbers) & ~self.finished

    def rows(self) -> Int[Tensor, " growing"]:
        """The structures that are not complete."""
        atoms = is_atom(self.numbers).sum(1)
        growing = atoms < self.most
        if not self.periodic:
            growing &= (atoms == 0) | self.unfinished().any(1)
        growing[list(self.failed)] = False
        return growing.nonzero()[:, 0]

    def add(self, row: int, number: int, distance: Float[Tensor, " sites"]) -> None:
        """An atom, and its distances to the sites before it."""
        site = len(distance)
        self.numbers[row, site] = number
        self.distance[row, site, :site] = self.distance[row, :site, site] = distance

    def crystals(self) -> Iterator[Made]:
        """What became of each structure."""
        for row, space in enumerate(self.spaces):
            if row in self.failed:
                yield self.failed[row]
                continue
            numbers = self.numbers[row]
            try:
                yield space.crystal(numbers[is_atom(numbers)].tolist())
            except StructureError as error:
                yield error


class AtomByAtom(Baseline):
    """The network, and what it takes from the training data.

    Buffers: `elements`, their atomic numbers; `shell`, the least and the greatest distance in Å
    from its focus at which an atom is placed. The least is the first percentile, over the training
    data, of the distance from an atom to its nearest; the greatest is the 99th percentile of the
    reach that a structure needs to hang together.
    """

    config: GSchNetConfig
    varying: ClassVar[tuple[str, ...]] = ("elements",)
    periodic: ClassVar[bool]
    elements: Tensor
    shell: Tensor

    def __init__(self, config: GSchNetConfig) -> None:
        super().__init__(config)
        self.network = NextAtom(config)
        self.bin_width = config.farthest / max(config.bins - 1, 1)
        self.register_buffer("elements", torch.zeros(0, dtype=torch.long))
        self.register_buffer("shell", torch.zeros(2))

    @classmethod
    def build(cls, config: GSchNetConfig, train: CachedSplit) -> AtomByAtom:
        """The network with random weights, for the elements and distances of a training split."""
        model = cls(config)
        sites = model.sites(train)
        model.elements = sites["numbers"][is_atom(sites["numbers"])].unique()
        least = nearest(**sites).quantile(0.01)
        model.shell = torch.stack(
            [least, needed_reach(sites["numbers"], sites["distance"]).quantile(0.99)]
        )
        return model

    @abstractmethod
    def sites(self, split: CachedSplit) -> Batch:
        """All crystals of a split as structures to be built.

        Returns:
            `numbers` `[structures, sites]`, `distance` `[structures, sites, sites]` in Å, and
            `own_image` `[structures]` in Å, as in `draw_states` and `with_focus`.
        """

    @abstractmethod
    def spaces(self, count: int, generator: torch.Generator) -> list[Space]:
        """Where new structures can grow."""

    def examples(self, split: CachedSplit) -> Dataset[Batch]:
        sites = self.sites(split)
        reach = needed_reach(sites["numbers"], sites["distance"]).clamp(min=float(self.shell[1]))
        return _Examples({**sites, "reach": reach})

    @property
    def choices(self) -> Int[Tensor, " choices"]:
        """What can come next: the elements, and last `STOP`."""
        return functional.pad(self.elements, (0, 1), value=STOP)

    def losses(
        self, batch: Batch, generator: torch.Generator, progress: float
    ) -> dict[str, Tensor]:
        """Of random states: KL of the next type, and of each node's distance to the next atom."""
        numbers, distance = batch["numbers"], batch["distance"]
        states = draw_states(numbers, distance, batch["reach"], self.periodic, generator)
        of = states.structure
        types, nodes = with_focus(
            numbers[of].where(states.placed, ABSENT),
            distance[of],
            batch["own_image"][of],
            states.focus,
        )
        there = types != ABSENT
        features = self.network.schnet(types, nodes)
        following = numbers[of, states.following].where(~states.stops, STOP)
        log_types = self.network.log_types(features, there, self.choices)
        # an element that the training data lack, as a validation split may have, is no choice
        matches = following[:, None] == self.choices
        known = matches.any(1)
        type_loss = -log_types[matches].sum() / known.sum().clamp(min=1)

        places = ~states.stops & known
        to_next = distance[of, states.following]
        to_focus = to_next.gather(1, states.focus[:, None])
        wanted = torch.cat([to_focus, to_next], 1)
        log_distances = self.network.log_distances(features[places], following[places])
        there = there[places]
        kl = functional.kl_div(
            log_distances[there], self.smeared(wanted[places][there]), reduction="sum"
        )
        return {"type": type_loss, "distance": kl / there.sum().clamp(min=1)}

    def smeared(self, distance: Float[Tensor, " nodes"]) -> Float[Tensor, "nodes bins"]:
        """Distances in Å as Gaussians over the bins, one bin wide."""
        place = (distance / self.bin_width).clamp(max=self.config.bins - 1)
        bins = torch.arange(self.config.bins, device=distance.device)
        return ((place[:, None] - bins).square() / -2).softmax(1)

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator) -> Iterator[Made]:
        for first in range(0, count, _AT_ONCE):
            growth = Growth(self.spaces(min(_AT_ONCE, count - first), generator), self)
            while len(rows := growth.rows()):
                self._step(growth, rows, generator)
            yield from growth.crystals()

    def _step(self, growth: Growth, rows: Tensor, generator: torch.Generator) -> None:
        """One atom more, or a focus finished, in each of some structures."""
        unfinished = growth.unfinished()[rows]
        focus = choose(unfinished, generator)
        types, nodes = with_focus(
            growth.numbers[rows], growth.distance[rows], growth.own_image[rows], focus
        )
        features = self.network.schnet(types, nodes)
        log_types = self.network.log_types(features, types != ABSENT, self.choices)
        # no structure ends before its first atom; where N is known, none before its last
        log_types[unfinished.sum(1) <= (1 if self.periodic else 0), -1] = -torch.inf
        following = self.choices[torch.multinomial(log_types.exp(), 1, generator=generator)[:, 0]]
        growth.finished[rows, focus] |= following == STOP
        log_distances = self.network.log_distances(features, following)
        for i in (following != STOP).nonzero()[:, 0].tolist():
            row = int(rows[i])
            try:
                distance = growth.spaces[row].candidates(int(focus[i]))
            except StructureError as error:
                growth.failed[row] = error
                continue
            bins = (distance / self.bin_width).round().long().clamp(max=self.config.bins - 1)
            score = log_distances[i, : len(bins)].gather(1, bins).sum(0) / TEMPERATURE
            taken = int(torch.multinomial(score.softmax(0), 1, generator=generator))
            growth.spaces[row].place(taken)
            growth.add(row, int(following[i]), distance[1:, taken])


class _Examples(Dataset):
    def __init__(self, arrays: Batch) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays["numbers"])

    def __getitems__(self, places: list[int]) -> Batch:
        return {name: array[places] for name, array in self.arrays.items()}
