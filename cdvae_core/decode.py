"""Latents to a folder of crystals: CIFs, one extxyz, and a manifest of how each came to be.

Crystals are written as they come. `manifest.json` is rewritten, atomically, after each batch and
names only what is there, so an interrupted run leaves a folder that can be used as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.io import write
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor

from cdvae_core import __version__
from cdvae_core.consistency import AS_DECODED, Consistency
from cdvae_core.crystal import Crystal, CrystalBatch
from cdvae_core.errors import ConfigError, OutputError, StructureError
from cdvae_core.files import write_atomically
from cdvae_core.langevin import LangevinStep, Schedule, final, sample
from cdvae_core.model import CDVAE
from cdvae_core.structures import to_cif

_STEPS_IN_MEMORY = 200  # of a trajectory that is being written


@dataclass(frozen=True)
class Decoded:
    """One decoded crystal.

    Attributes:
        name: of its files.
        crystal: None where the result is no crystal at all.
        problem: why it is none, or is not what was asked for.
    """

    name: str
    crystal: Crystal | None
    problem: str = ""


@dataclass(frozen=True)
class Given:
    """What the decoder is told of each crystal instead of predicting it from z.

    Attributes:
        num_atoms: N.
        atomic_numbers: `[atoms]` of each crystal; needs N.
        lattice: cells in Å.
    """

    num_atoms: Int[Tensor, " crystals"] | None = None
    atomic_numbers: Sequence[Tensor] | None = None
    lattice: Float[Tensor, "crystals 3 3"] | None = None

    def part(self, part: slice, device: torch.device, tries: int) -> dict[str, Tensor]:
        """Of some crystals, each so many times, as `sample` takes it."""
        told = {}
        if self.num_atoms is not None:
            told["num_atoms"] = self.num_atoms[part].repeat_interleave(tries, 0).to(device)
        if self.atomic_numbers is not None:
            types = [one for one in self.atomic_numbers[part] for _ in range(tries)]
            told["atomic_numbers"] = torch.cat(types).to(device)
        if self.lattice is not None:
            told["lattice"] = self.lattice[part].repeat_interleave(tries, 0).to(device)
        return told


def truth(crystals: Sequence[Crystal], whats: Sequence[str]) -> Given:
    """What crystals truly are, to be given to the decoder: how much do the predictions cost?

    Args:
        whats: some of "N", "lattice" and "composition", which brings N with it.

    Raises:
        ConfigError: another word.
    """
    for word in whats:
        if word not in ("N", "lattice", "composition"):
            raise ConfigError(f"'{word}' cannot be given; what can: N, lattice, composition")
    batch = CrystalBatch.from_crystals(crystals)
    types = batch.atomic_numbers.split(batch.num_atoms.tolist())
    return Given(
        batch.num_atoms if {"N", "composition"} & set(whats) else None,
        types if "composition" in whats else None,
        batch.lattice if "lattice" in whats else None,
    )


@dataclass
class Folder:
    """The folder that a decoding run fills.

    Args:
        path: made if it is not there; must be empty.
        settings: what the manifest says of the run.

    Raises:
        ConfigError: the folder holds something already.
        OutputError: it cannot be made.
    """

    path: Path
    settings: dict[str, Any]
    entries: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise ConfigError(f"{self.path} is not empty; choose another --out")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.path} cannot be made: {error.strerror}") from error
        self._manifest()

    def latents(self, z: Tensor, names: Sequence[str]) -> None:
        """Keep the latents that the run starts from, row by row in the order of names."""
        save_file(
            {"z": z.cpu().contiguous()},
            self.path / "latents.safetensors",
            {"names": "\n".join(names)},
        )

    def reference(self, crystals: Sequence[Crystal], ids: Sequence[str]) -> None:
        """Keep what is reconstructed, so that the folder can be evaluated by itself."""
        frames = []
        for crystal, name in zip(crystals, ids, strict=True):
            atoms = _to_ase(crystal.atomic_numbers, crystal.frac_coords, crystal.lattice)
            atoms.info["name"] = name
            frames.append(atoms)
        write(self.path / "reference.extxyz", frames, format="extxyz")

    def add(self, decoded: Sequence[Decoded]) -> None:
        """Write a batch of crystals, then the manifest that names them."""
        for item in decoded:
            entry: dict[str, Any] = {"name": item.name}
            if item.problem:
                entry["problem"] = item.problem
            if item.crystal is not None:
                entry |= {"cif": f"{item.name}.cif", "formula": item.crystal.formula}
                (self.path / entry["cif"]).write_text(to_cif(item.crystal), encoding="utf-8")
                atoms = _to_ase(
                    item.crystal.atomic_numbers, item.crystal.frac_coords, item.crystal.lattice
                )
                atoms.info["name"] = item.name
                write(self.path / "crystals.extxyz", atoms, format="extxyz", append=True)
            self.entries.append(entry)
        self._manifest()

    def trajectory(self, names: Sequence[str], steps: Sequence[LangevinStep], last: bool) -> None:
        """Add to each crystal's way in `NAME.trajectory.extxyz`, one frame per step.

        Args:
            last: the ways are complete now; until then the files end in `.part`.
        """
        frames: list[list[Any]] = [[] for _ in names]
        for step in steps:
            for place, arrays in enumerate(_each(step.crystals)):
                atoms = _to_ase(*arrays)  # on the way to a crystal it need not be one
                atoms.info |= {
                    "level": step.level,
                    "step": step.step,
                    "sigma": step.sigma,
                    "score_norm": float(step.score_norm[place]),
                }
                frames[place].append(atoms)
        for name, images in zip(names, frames, strict=True):
            part = self.path / f"{name}.trajectory.extxyz.part"
            write(part, images, format="extxyz", append=True)
            if last:
                part.replace(part.with_suffix(""))

    def forget_partial_trajectories(self) -> None:
        """Remove those of a batch that was not finished."""
        for part in self.path.glob("*.trajectory.extxyz.part"):
            part.unlink()

    def _manifest(self) -> None:
        text = json.dumps({**self.settings, "crystals": self.entries}, indent=1)
        write_atomically(self.path / "manifest.json", text.encode())


def settings(model_path: Path, seed: int, **more: Any) -> dict[str, Any]:
    """What the manifest of a decoding run says besides its crystals."""
    return {
        "checkpoint": str(model_path),
        "code_version": __version__,
        "seed": seed,
        **more,
    }


def decode(
    model: CDVAE,
    z: Float[Tensor, "crystals latent"],
    names: Sequence[str],
    schedule: Schedule,
    seed: int,
    *,
    given: Given = Given(),
    consistency: Consistency = AS_DECODED,
    batch_size: int = 128,
    folder: Folder | None = None,
    trajectory: bool = False,
) -> Iterator[tuple[LangevinStep, list[Decoded]]]:
    """Decode latents batch by batch.

    Yields every Langevin step together with the crystals that are finished with it (none but at
    the end of a batch). With the same seed, batch size and device the crystals are the same. A run
    that is stopped leaves what is complete, in the folder and in its manifest, and nothing else.

    Args:
        names: one per latent.
        given: what is not to be predicted.
        consistency: whether each latent is decoded several times, and elements are exchanged.
        batch_size: crystals at once, tries included, but all tries of one latent.
        folder: where crystals are written as they come.
        trajectory: keep every step in the folder, too.

    Raises:
        ConfigError: trajectories together with tries or exchanges.
    """
    if trajectory:
        consistency.check_as_decoded()
    tries = consistency.tries
    try:
        for number, part in enumerate(_parts(len(z), batch_size, tries)):
            generator = _generator(z.device, seed, number)
            told = given.part(part, z.device, tries)
            kept: list[LangevinStep] = []
            again = z[part].repeat_interleave(tries, 0)
            steps = sample(model, again, schedule=schedule, generator=generator, **told)
            for step in steps:
                last = step.index == step.total - 1
                done = (
                    _finished(model, z[part], step.crystals, names[part], consistency)
                    if last
                    else []
                )
                if trajectory and folder is not None:
                    kept.append(step)
                    if last or len(kept) == _STEPS_IN_MEMORY:
                        folder.trajectory(names[part], kept, last)
                        kept.clear()
                if last and folder is not None:  # the manifest names what is complete
                    folder.add(done)
                yield step, done
    finally:
        if folder is not None:
            folder.forget_partial_trajectories()


def decode_on_cluster(
    model: CDVAE,
    z: Float[Tensor, "crystals latent"],
    names: Sequence[str],
    schedule: Schedule,
    seed: int,
    scheduler: str,
    *,
    given: Given = Given(),
    consistency: Consistency = AS_DECODED,
    batch_size: int = 128,
) -> Iterator[list[Decoded]]:
    """Decode the same batches, and so on like devices the same crystals, on Dask workers.

    Each worker uses its own GPU, the first that it sees, or else its processor.

    Yields:
        The crystals of each batch, in order.

    Raises:
        ConfigError: nobody answers at the scheduler's address.
    """
    from joblib import Parallel, delayed

    from cdvae_core.cluster import workers_of

    model, z = model.cpu(), z.cpu()
    with workers_of(scheduler):
        yield from Parallel(return_as="generator")(
            delayed(_decode_batch)(
                model, z[part], names[part], schedule, seed, number, consistency,
                given.part(part, torch.device("cpu"), consistency.tries),
            )
            for number, part in enumerate(_parts(len(z), batch_size, consistency.tries))
        )  # fmt: skip


def _decode_batch(
    model: CDVAE,
    z: Tensor,
    names: Sequence[str],
    schedule: Schedule,
    seed: int,
    number: int,
    consistency: Consistency,
    told: dict[str, Tensor],
) -> list[Decoded]:
    """On a worker: batch `number` of a run."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    told = {name: value.to(device) for name, value in told.items()}
    generator = _generator(device, seed, number)
    model, z = model.to(device), z.to(device)
    again = z.repeat_interleave(consistency.tries, 0)
    steps = sample(model, again, schedule=schedule, generator=generator, **told)
    return _finished(model, z, final(steps), names, consistency)


def largest_batch(model: CDVAE) -> int:
    """How many crystals to decode at once: 128 on a processor, on a GPU what its memory holds.

    There a few crystals of the most atoms are evaluated once, and two thirds of the free memory are
    divided by what each of them took.
    """
    if model.device.type != "cuda":
        return 128
    probe, most = 8, model.config.max_atoms
    torch.cuda.reset_peak_memory_stats(model.device)
    before = torch.cuda.memory_allocated(model.device)
    z = torch.zeros(probe, model.config.latent_dim, device=model.device)
    sizes = torch.full((probe,), most, device=model.device)
    generator = torch.Generator(model.device).manual_seed(0)
    next(sample(model, z, schedule="fast", generator=generator, num_atoms=sizes))
    each = (torch.cuda.max_memory_allocated(model.device) - before) / probe
    free, _ = torch.cuda.mem_get_info(model.device)
    return int(min(max(2 * free / 3 / each, 16), 4096))


def _generator(device: torch.device | str, seed: int, number: int) -> torch.Generator:
    """Of batch `number`."""
    return torch.Generator(device).manual_seed(seed * 1_000_003 + number)


def latents_at_once(batch_size: int, tries: int) -> int:
    """How many latents a batch of so many crystals decodes."""
    return max(1, batch_size // tries)


def _parts(count: int, batch_size: int, tries: int) -> list[slice]:
    """Which latents are decoded together."""
    size = latents_at_once(batch_size, tries)
    return [slice(first, first + size) for first in range(0, count, size)]


def _finished(
    model: CDVAE,
    z: Tensor,
    crystals: CrystalBatch,
    names: Sequence[str],
    consistency: Consistency,
) -> list[Decoded]:
    """The crystals of the last step, each by itself so that one bad one spoils no other."""
    made: list[tuple[Crystal | None, str]] = []
    for arrays in _each(crystals):
        try:
            made.append((Crystal(*arrays), ""))
        except StructureError as error:
            made.append((None, str(error)))
    tries = consistency.tries
    return [
        Decoded(name, *consistency.choose(model, z[i], made[i * tries : (i + 1) * tries]))
        for i, name in enumerate(names)
    ]


def _each(crystals: CrystalBatch) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Atomic numbers, fractional coordinates and lattice of each, whatever they are."""
    sizes = crystals.num_atoms.tolist()
    numbers = crystals.atomic_numbers.cpu().split(sizes)
    coords = crystals.frac_coords.double().cpu().split(sizes)
    lattices = crystals.lattice.double().cpu()
    for parts in zip(numbers, coords, lattices, strict=True):
        a, x, cell = (part.numpy() for part in parts)
        yield a, x, cell


def _to_ase(numbers: np.ndarray, frac_coords: np.ndarray, lattice: np.ndarray) -> Atoms:
    return Atoms(numbers=numbers, scaled_positions=frac_coords, cell=lattice, pbc=True)
