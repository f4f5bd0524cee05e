"""How the flow prior was chosen: short trainings of it, judged by what their draws mean.

    python benchmarks/flows.py checkpoints/perov_5 --steps 2000 "" "scale=each" "times=even"

Each quoted argument is one variant: `scale=each` standardises every latent by itself, `times=even`
draws no times of training late, `rate=0.001` is the learning rate. Of a thousand draws the table
says how many mean whole numbers of atoms, and how far (the EMD) the predicted property, the number
of elements and, in units of an atom, N are from those of the test crystals' own latents; first of
the draws as the flow makes them (`plain`), then with labels of training crystals and drawn again
(`labelled`). The last column is the distance to the nearest latent of a training crystal, the mean
over the draws; the last row is of the test crystals themselves.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from cdvae_core import prior
from cdvae_core.data.cache import open_split
from cdvae_core.encode import labelled
from cdvae_core.model import CDVAE
from cdvae_core.prior import FlowPrior, Labelled, draw_whole, fit, read_counts

DRAWS = 1000


def even_times(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator)


def changes(words: list[str]) -> tuple[bool, dict[str, object]]:
    """Whether each latent has a scale of its own, and what is another in `prior`."""
    each, patches = False, {}
    for word in words:
        name, _, value = word.partition("=")
        if word == "scale=each":
            each = True
        elif word == "times=even":
            patches["_times"] = even_times
        elif name == "rate":
            patches["_LEARNING_RATE"] = float(value)
        else:
            raise SystemExit(f"no variant is called '{word}'")
    return each, patches


def trained(
    data: dict[str, Labelled], max_atoms: int, steps: int, seed: int, words: list[str]
) -> FlowPrior:
    """A flow, its latents in the model's own scale whatever it was trained in."""
    each, patches = changes(words)
    width = data["train"].z.shape[1]
    scale = data["train"].z.std(0) + 1e-6 if each else torch.ones(width)
    scaled = [replace(data[split], z=data[split].z / scale) for split in ("train", "val")]
    with mock.patch.multiple(prior, **patches) if patches else nullcontext():
        *_, (_, _, best) = fit(*scaled, max_atoms, steps=steps, seed=seed)
    best.mean *= scale
    best.std = best.std * scale
    return best.eval()


@torch.no_grad()
def meaning(model: CDVAE, z: Tensor) -> dict[str, Tensor]:
    """What the heads read from latents."""
    off, kinds = read_counts(model, z)
    sizes = model.aggregates(z).likeliest_num_atoms
    return {"whole": off < prior._WHOLE, "prop": model.predict_property(z), "kinds": kinds,
            "N": sizes}  # fmt: skip


def row(found: dict[str, Tensor], true: dict[str, Tensor]) -> str:
    far = [wasserstein_distance(found[key], true[key]) for key in ("prop", "kinds", "N")]
    return f"{float(found['whole'].float().mean()):8.3f}" + "".join(f"{one:8.4f}" for one in far)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("variants", nargs="+", metavar='"WORD ..."')
    parser.add_argument("--steps", type=int, default=2000, help="of training")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each variant")
    arguments = parser.parse_args()
    for variant in arguments.variants:
        changes(variant.split())  # before an hour is spent on the others
    torch.set_num_threads(1)
    model = CDVAE.load(arguments.checkpoint)
    dataset = model.provenance["dataset"]
    data = {s: labelled(model, open_split(dataset, s)) for s in ("train", "val", "test")}
    true = meaning(model, data["test"].z)
    heads = "".join(f"{name:>8}" for name in ("whole", "prop", "kinds", "N"))
    print(f"seed  plain{heads}  labelled{heads}  nearest  variant")
    for variant in arguments.variants:
        for seed in range(arguments.seeds):
            most = model.config.max_atoms
            flow = trained(data, most, arguments.steps, seed, variant.split())
            plain = flow.sample(DRAWS, torch.Generator().manual_seed(seed))
            drawn = draw_whole(model, flow, DRAWS, torch.Generator().manual_seed(seed))
            near = torch.cdist(drawn, data["train"].z).amin(1).mean()
            both = [row(meaning(model, z), true) for z in (plain, drawn)]
            print(f"{seed:4}       {both[0]}          {both[1]}{near:9.2f}  {variant}", flush=True)
    near = torch.cdist(data["test"].z, data["train"].z).amin(1).mean()
    itself = row(true, true)
    print(f"           {itself}          {itself}{near:9.2f}  the test crystals")


if __name__ == "__main__":
    main()
