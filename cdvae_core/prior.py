"""A prior that knows where the latents are: flow matching, with conditions.

The encoder does not fill N(0, 1): what is drawn from there lies between the latents, and decodes to
other numbers of elements and too few different crystals (Section 4.2 of the paper names it and
proposes a flow). Here a small network learns the velocity of a straight flow from noise x to
standardised latents y (Lipman et al. 2023):

    point (1 - t) x + t y,   velocity y - x,   t in [0, 1]

and a latent is drawn by following it from t = 0 to 1. Conditions (a property, the number of atoms,
elements that must or must not be there) are inputs that are left out at random in training, so that
one network has the velocity with and without them; guidance g follows

    v(free) + g (v(conditioned) - v(free))        (Ho and Salimans 2022).

Crystals have whole numbers of atoms, latents do not: some draws lie between two compositions and
mean 3.6 N with 1.4 La. And followed without conditions the flow draws rare properties too rarely,
crystals of few elements too often. So each draw without wishes takes its property and its number of
elements from a crystal of the training data, asks the flow for the one, and is drawn again until it
has the other, in whole numbers (`draw_whole`). The crystals of one sample are taken evenly, so that
even a small one has all kinds: its draws are not independent of each other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cdvae_core.checkpoint import state_of
from cdvae_core.crystal import MAX_ATOMIC_NUMBER
from cdvae_core.errors import CheckpointError, ConfigError
from cdvae_core.files import write_atomically
from cdvae_core.model import CDVAE
from cdvae_core.noise import likeliest_counts

FILE = "prior.safetensors"
FORMAT = "cdvae-prior-3"
_STEPS = 20  # of the midpoint rule: twice as many move a draw by little, see the tests
_FREQUENCIES = 16
_BATCH = 256
_LEFT_OUT = 0.3  # how often each condition is
_ALL_LEFT_OUT = 0.3  # how often all are, for the flow without conditions
_LEARNING_RATE = 3e-3
_LATE = 1.0  # half of the times are around sigmoid(1): which crystal it becomes is decided late
_WHOLE = 0.15  # atoms that N c may be off a whole number, for the element that is farthest off
_ROUNDS = 16  # of drawing again
_UNHEARD_OF = 100.0  # standard deviations of the property
_ENOUGH = 10  # labels in a range of the property, to draw as often as they are
_MOST_ELEMENTS = 20  # more count as so many
_LABELS = 1000  # crystals whose property and number of elements draws take
_DECAY = 0.999  # of the averaged weights


@dataclass(frozen=True)
class Condition:
    """What drawn crystals should be like; what is left out is free.

    Attributes:
        prop: least and most of the checkpoint's property, in its unit; may be equal.
        num_atoms: N.
        wanted, unwanted: atomic numbers that must, or must not, be there.
    """

    prop: tuple[float, float] | None = None
    num_atoms: int | None = None
    wanted: tuple[int, ...] = ()
    unwanted: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return self != Condition()


@dataclass(frozen=True, eq=False)
class Labelled:
    """Latents and what is known of their crystals.

    Attributes:
        z: `[crystals, latent]`.
        prop: `[crystals]`, NaN where unknown.
        num_atoms: `[crystals]`.
        elements: `[crystals, 100]`, whether element Z is there, at Z - 1.
    """

    z: Float[Tensor, "crystals latent"]
    prop: Float[Tensor, " crystals"]
    num_atoms: Int[Tensor, " crystals"]
    elements: Tensor


class FlowPrior(nn.Module):
    """The velocity network and the scales of latents and property.

    Args:
        latent_dim: width of z.
        max_atoms: largest N that can be asked for.
        hidden: width.
        blocks: residual blocks.
    """

    mean: Tensor
    std: Tensor
    prop_mean: Tensor
    prop_std: Tensor
    labels: Tensor  # property (NaN where unknown) and number of elements of training crystals

    def __init__(self, latent_dim: int, max_atoms: int, hidden: int = 512, blocks: int = 3) -> None:
        super().__init__()
        self.sizes = {
            "latent_dim": latent_dim, "max_atoms": max_atoms, "hidden": hidden, "blocks": blocks,
        }  # fmt: skip
        conditions = 2 + (max_atoms + 1) + 2 * MAX_ATOMIC_NUMBER
        self.embed = nn.Linear(latent_dim + 2 * _FREQUENCIES + conditions, hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.SiLU(),
                nn.Linear(hidden, hidden),
            )
            for _ in range(blocks)
        )  # fmt: skip
        self.last = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, latent_dim))
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("std", torch.ones(latent_dim))
        self.register_buffer("prop_mean", torch.zeros(()))
        self.register_buffer("prop_std", torch.ones(()))
        self.register_buffer("labels", torch.full((_LABELS, 2), torch.nan))

    def forward(
        self,
        x: Float[Tensor, "crystals latent"],
        t: Float[Tensor, " crystals"],
        condition: Float[Tensor, "crystals conditions"],
    ) -> Float[Tensor, "crystals latent"]:
        """The velocity at a point of the way, all standardised."""
        angle = t[:, None] * math.pi * torch.arange(1, _FREQUENCIES + 1, device=t.device)
        h = self.embed(torch.cat([x, angle.sin(), angle.cos(), condition], -1))
        for block in self.blocks:
            h = h + block(h)
        return self.last(h)

    @torch.no_grad()
    def sample(
        self,
        count: int,
        generator: torch.Generator,
        condition: Condition | None = None,
        guidance: float = 1.0,
        prop: Float[Tensor, " count"] | None = None,
    ) -> Float[Tensor, "count latent"]:
        """Draw latents.

        Args:
            generator: on any device; the same seed gives the same latents.
            condition: what the crystals should be like. Within a range, properties are as frequent
                as in the training data, evenly spread where these have none.
            guidance: 1 takes the conditioned flow as it was learnt, more exaggerates it.
            prop: the property of each, NaN to leave it free; only without a condition, and
                followed without guidance.

        Raises:
            ConfigError: a condition that the prior was not made for.
        """
        device = self.mean.device
        shape = (count, self.sizes["latent_dim"])
        x = torch.randn(shape, generator=generator, device=generator.device).to(device)
        free = self._rows(Condition(), count)
        if condition and condition.prop is not None:
            prop = self._properties(*condition.prop, count, generator)
        asked = self._rows(condition or Condition(), count, prop)

        def velocity(x: Tensor, t: float) -> Tensor:
            time = x.new_full((count,), t)
            found = self(x, time, asked)
            if condition and guidance != 1:
                plain = self(x, time, free)
                found = plain + guidance * (found - plain)
            return found

        return _follow(x, velocity, 0.0, 1.0, _STEPS) * self.std + self.mean

    def latents(self, noise: Float[Tensor, "crystals latent"]) -> Float[Tensor, "crystals latent"]:
        """Where the free flow carries noise, with gradients."""
        carried = _follow(noise, self._free_velocity(len(noise)), 0.0, 1.0, _STEPS)
        return carried * self.std + self.mean

    @torch.no_grad()
    def noise(self, z: Float[Tensor, "crystals latent"]) -> Float[Tensor, "crystals latent"]:
        """The way back: the noise that `latents` carries to z, as near as its steps allow."""
        standard = (z - self.mean) / self.std
        return _follow(standard, self._free_velocity(len(z)), 1.0, 0.0, _STEPS)

    def _free_velocity(self, count: int) -> Callable[[Tensor, float], Tensor]:
        free = self._rows(Condition(), count)
        return lambda x, t: self(x, x.new_full((count,), t), free)

    def _properties(
        self, low: float, high: float, count: int, generator: torch.Generator
    ) -> Float[Tensor, " count"]:
        """Drawn from a range.

        Raises:
            ConfigError: it lies where no crystal of the training data is near.
        """
        mean, std = float(self.prop_mean), float(self.prop_std)
        far = max(abs(low - mean), abs(high - mean)) / std
        if not far <= _UNHEARD_OF:
            raise ConfigError(
                f"the property that is asked for is {far:.0f} standard deviations from the mean of "
                f"the training data, {mean:.3g}: ask for one within {_UNHEARD_OF:g}"
            )
        known = self.labels[:, 0]
        if low == high:
            return known.new_full((count,), low)
        inside = known[(known >= low) & (known <= high)].sort().values
        place = torch.rand(count, generator=generator, device=generator.device).to(known.device)
        if len(inside) < _ENOUGH:
            return low + (high - low) * place
        place = place * (len(inside) - 1)
        below = place.long()
        return torch.lerp(inside[below], inside[below + 1], place.frac())

    def _rows(
        self, condition: Condition, count: int, prop: Float[Tensor, " count"] | None = None
    ) -> Float[Tensor, "count conditions"]:
        """Input of the network, with `prop` in the place of the condition's property."""
        for number in condition.wanted + condition.unwanted:
            if not 1 <= number <= MAX_ATOMIC_NUMBER:
                raise ConfigError(f"atomic number {number} is not from 1 to {MAX_ATOMIC_NUMBER}")
        most = self.sizes["max_atoms"]
        if condition.num_atoms is not None and not 1 <= condition.num_atoms <= most:
            asked = condition.num_atoms
            raise ConfigError(f"num_atoms {asked} is not from 1 to the prior's {most}")
        device = self.mean.device
        prop = torch.full((count,), torch.nan) if prop is None else prop
        size = torch.tensor([condition.num_atoms or 0], device=device).expand(count)
        elements = torch.zeros(2, 1, MAX_ATOMIC_NUMBER, device=device)
        for row, numbers in enumerate((condition.wanted, condition.unwanted)):
            elements[row, 0, [n - 1 for n in numbers]] = 1
        return self.conditions(prop.to(device), size, *elements.expand(-1, count, -1))

    def conditions(
        self,
        prop: Float[Tensor, " crystals"],
        num_atoms: Int[Tensor, " crystals"],
        wanted: Float[Tensor, "crystals elements"],
        unwanted: Float[Tensor, "crystals elements"],
    ) -> Float[Tensor, "crystals conditions"]:
        """As input of the network; NaN and N = 0 mean that it is free."""
        known = ~prop.isnan()
        value = torch.where(known, (prop - self.prop_mean) / self.prop_std, 0.0)
        size = nn.functional.one_hot(num_atoms, self.sizes["max_atoms"] + 1).float()
        size[:, 0] = 0
        return torch.cat([value[:, None], known[:, None].float(), size, wanted, unwanted], -1)


def _follow(
    x: Tensor, velocity: Callable[[Tensor, float], Tensor], begin: float, end: float, steps: int
) -> Tensor:
    """Along a velocity from one time to another, by the midpoint rule."""
    step = (end - begin) / steps
    for i in range(steps):
        t = begin + i * step
        middle = x + velocity(x, t) * step / 2
        x = x + velocity(middle, t + step / 2) * step
    return x


def fit(
    data: Labelled,
    held_out: Labelled,
    max_atoms: int,
    *,
    steps: int = 6000,
    seed: int = 0,
    hidden: int = 512,
) -> Iterator[tuple[int, float, FlowPrior]]:
    """Train a prior.

    Args:
        data: of the training split.
        held_out: of the validation split: the loss that is yielded is on these.
        max_atoms: the checkpoint's.
        steps: of AdamW, on a cosine.
        seed: of every draw.
        hidden: width of the network.

    Raises:
        ConfigError: the loss is not finite.

    Yields:
        Every hundred steps, and at the end: the step, the lowest loss so far (1 is the variance of
        a latent), and the prior with the averaged weights that had it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FlowPrior(data.z.shape[1], max_atoms, hidden)
    model.mean.copy_(data.z.mean(0))
    # one scale for all: a latent that hardly varies says nothing, and is not to be blown up
    model.std.copy_(data.z.var(0).mean().sqrt() + 1e-6)
    model.labels.copy_(_labels(data))
    known = data.prop[~data.prop.isnan()]
    if len(known) > 1:
        model.prop_mean.copy_(known.mean())
        model.prop_std.copy_(known.std() + 1e-6)
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(_DECAY), use_buffers=True
    )
    average = cast(FlowPrior, averaged.module)
    optimiser = torch.optim.AdamW(model.parameters(), _LEARNING_RATE, weight_decay=0.01)
    plan = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, _LEARNING_RATE, total_steps=steps, pct_start=0.05
    )
    generator = torch.Generator().manual_seed(seed)
    lowest, best = math.inf, average
    for step in range(1, steps + 1):
        chosen = torch.randint(len(data.z), (_BATCH,), generator=generator)
        loss = _loss(model, data, chosen, generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        plan.step()
        averaged.update_parameters(model)
        if step % 100 == 0 or step == steps:
            now = _held_out_loss(average, held_out)
            if not math.isfinite(now):
                raise ConfigError(f"the flow's loss is {now} after {step} steps: it cannot be kept")
            if now < lowest:
                lowest, best = now, deepcopy(average)
            yield step, lowest, best


def _labels(data: Labelled) -> Float[Tensor, "labels 2"]:
    """Of crystals evenly chosen from all, in order of the number of elements, then the property."""
    kinds = data.elements.sum(1).clamp_max(_MOST_ELEMENTS)
    order = data.prop.argsort()
    order = order[kinds[order].argsort(stable=True)]
    chosen = order[torch.linspace(0, len(order) - 1, _LABELS).round().long()]
    return torch.stack([data.prop[chosen], kinds[chosen].to(data.prop.dtype)], 1)


def _loss(model: FlowPrior, data: Labelled, chosen: Tensor, generator: torch.Generator) -> Tensor:
    y = (data.z[chosen] - model.mean) / model.std
    x = torch.randn(y.shape, generator=generator)
    t = _times(len(y), generator)
    conditions = _some_conditions(model, data, chosen, generator)
    way = (1 - t[:, None]) * x + t[:, None] * y
    return (model(way, t, conditions) - (y - x)).square().mean()


def _times(count: int, generator: torch.Generator) -> Tensor:
    """Half of them evenly, for the conditions that choose the way; half late, for where it ends."""
    late = (torch.randn(count, generator=generator) + _LATE).sigmoid()
    anywhen = torch.rand(count, generator=generator)
    return torch.where(torch.rand(count, generator=generator) < 0.5, late, anywhen)


def _some_conditions(
    model: FlowPrior, data: Labelled, chosen: Tensor, generator: torch.Generator
) -> Tensor:
    """True ones, some of them left out: what is asked for later is never everything."""
    count = len(chosen)
    out = torch.rand(4, count, generator=generator) < _LEFT_OUT
    out |= torch.rand(count, generator=generator) < _ALL_LEFT_OUT
    prop = data.prop[chosen].masked_fill(out[0], torch.nan)
    size = data.num_atoms[chosen].masked_fill(out[1], 0)
    there = data.elements[chosen].float()
    named = torch.rand(2, count, 1, generator=generator)  # how many of the elements are named
    pick = torch.rand(2, *there.shape, generator=generator)
    wanted = there * (pick[0] < named[0]) * ~out[2, :, None]
    unwanted = (1 - there) * (pick[1] < named[1] ** 4) * ~out[3, :, None]
    return model.conditions(prop, size, wanted, unwanted)


@torch.no_grad()
def _held_out_loss(model: FlowPrior, data: Labelled) -> float:
    generator = torch.Generator().manual_seed(1)
    every = torch.arange(len(data.z))
    return float(_loss(model, data, every, generator))


@torch.no_grad()
def read_counts(
    model: CDVAE, z: Float[Tensor, "crystals latent"]
) -> tuple[Float[Tensor, " crystals"], Int[Tensor, " crystals"]]:
    """What a latent says of whole atoms.

    Returns:
        how far N c is from whole numbers, in atoms of the element that is farthest off; and the
        number of elements in the nearest whole numbers.
    """
    found = model.aggregates(z)
    num_atoms = found.likeliest_num_atoms
    composition = found.composition.float().softmax(-1)
    amounts = composition * num_atoms[:, None]
    crystal = torch.repeat_interleave(num_atoms)
    there = torch.zeros_like(amounts, dtype=torch.bool)
    there[crystal, likeliest_counts(composition, num_atoms) - 1] = True
    return (amounts - amounts.round()).abs().amax(-1), there.sum(-1).clamp_max(_MOST_ELEMENTS)


def draw_whole(
    model: CDVAE,
    flow: FlowPrior,
    count: int,
    generator: torch.Generator,
    condition: Condition | None = None,
    guidance: float = 1.0,
) -> Float[Tensor, "count latent"]:
    """Latents from a flow that mean whole numbers of atoms, on the model's device.

    Properties and numbers of elements are those of training crystals; with wishes, those that the
    flow draws. What is not whole after some rounds, or has other elements, comes as near as it did.
    """
    prop, wanted = flow.labels[_evenly(count, generator).to(flow.labels.device)].unbind(1)

    def some(slots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        asked = None if condition else prop[slots.to(prop.device)]
        z = flow.sample(len(slots), generator, condition, guidance, asked).to(model.device)
        return z, *read_counts(model, z)

    z, off, kinds = some(torch.arange(count))
    wanted = _usual_kinds(off, kinds, generator) if condition else wanted.to(z.device).long()
    cost = _cost(off, kinds, wanted)
    for _ in range(_ROUNDS - 1):
        unlike = cost.nonzero()[:, 0]
        if not len(unlike):
            break
        times = count // len(unlike)  # the fewer are left, the oftener each is drawn
        more, off, kinds = some(unlike.repeat(times))
        more_cost = _cost(off, kinds, wanted[unlike].repeat(times)).view(times, -1)
        least, which = more_cost.min(0)
        best = more.view(times, len(unlike), -1)[which, torch.arange(len(unlike))]
        better = least < cost[unlike]
        z[unlike[better]], cost[unlike[better]] = best[better], least[better]
    return z


def _usual_kinds(off: Tensor, kinds: Tensor, generator: torch.Generator) -> Tensor:
    """Numbers of elements to draw again for: those of whole draws, also where a draw is none."""
    whole = off < _WHOLE
    if not bool(whole.any()):
        return kinds
    place = torch.rand(len(kinds), generator=generator, device=generator.device) * int(whole.sum())
    return torch.where(whole, kinds, kinds[whole][place.long().to(kinds.device)])


def _evenly(count: int, generator: torch.Generator) -> Int[Tensor, " count"]:
    """Places of labels with the same distance between them, from anywhere on, in random order."""
    device = generator.device
    start = torch.rand((), generator=generator, device=device)
    place = (torch.arange(count, device=device) + start) * (_LABELS / count)
    order = torch.randperm(count, generator=generator, device=device)
    return place.long().clamp_max(_LABELS - 1)[order]


def _cost(off: Tensor, kinds: Tensor, wanted: Tensor) -> Tensor:
    """0 for a draw that is whole and has the number of elements that is wanted."""
    return (off - _WHOLE).clamp_min(0.0) + (kinds != wanted)


def draw(
    model: CDVAE,
    folder: Path,
    count: int,
    seed: int,
    prior: str | None = None,
    condition: Condition | None = None,
    guidance: float = 1.0,
) -> tuple[Float[Tensor, "count latent"], str]:
    """Latents from a checkpoint's prior, and which one it was.

    Args:
        folder: of the checkpoint.
        prior: "gaussian" is N(0, 1), "flow" the checkpoint's own; None the flow where there is one.

    Raises:
        ConfigError: no such prior, no flow here, wishes that N(0, 1) cannot hear, or one about the
            property of a model that has none.
    """
    if prior not in (None, "gaussian", "flow"):
        raise ConfigError(f"no prior is called '{prior}'; there are gaussian and flow")
    flow = None if prior == "gaussian" else load_prior(folder)
    if prior == "flow" and flow is None:
        raise ConfigError(f"{folder} has no {FILE}: run `cdvae prior {folder}` first")
    if condition and condition.prop is not None and model.config.prop is None:
        raise ConfigError(f"{folder} was trained without a property: it cannot be asked for one")
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same on every device
    if flow is not None:
        return draw_whole(model, flow, count, generator, condition, guidance), "flow"
    if condition and replace(condition, num_atoms=None):  # N is forced in the sampler
        raise ConfigError("wishes about elements or the property need the flow: `cdvae prior`")
    z = torch.randn(count, model.config.latent_dim, generator=generator)
    return z.to(model.device), "gaussian"


def save_prior(prior: FlowPrior, folder: Path) -> None:
    """Into a checkpoint's folder, atomically.

    Weights in half precision, which moves a draw by little; scales and labels as they are: energies
    of -154 eV would lose what tells them apart.
    """
    state = {name: value.contiguous() for name, value in state_of(prior, half=True).items()}
    content = save(state, {"format": FORMAT, "sizes": json.dumps(prior.sizes)})
    write_atomically(folder / FILE, content)


def load_prior(folder: Path, device: str | torch.device = "cpu") -> FlowPrior | None:
    """The prior of a checkpoint's folder, None where it has none.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT:
            raise CheckpointError(f"{path} is of another version: run `cdvae prior` again")
        prior = FlowPrior(**json.loads(metadata["sizes"]))
        prior.load_state_dict(state)
    except CheckpointError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): run `cdvae prior` again") from error
    return prior.to(device).eval()
