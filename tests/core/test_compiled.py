"""What makes the decoder faster leaves its results as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from examples import small_model

from cdvae_core.allocator import keep_freed_memory
from cdvae_core.decode import largest_batch

# In a process of its own, because the type checker of the tests is nothing that can be compiled.
SCORES = """
import torch
from examples import batch, prototypes, small_model
from cdvae_core.compiled import compile_decoder

import torch._inductor.compile_fx

if {broken}:
    def broken(*arguments, **options):
        raise RuntimeError("no compiler here")
    torch._inductor.compile_fx.compile_fx = broken
plain, compiled = small_model(), small_model()
compile_decoder(compiled, cuda_graphs=True)
crystals = batch(list(prototypes().values()), torch.float32)
z = torch.ones(crystals.num_crystals, plain.config.latent_dim)
with torch.no_grad():
    one, other = (model.score(z, crystals) for model in (plain, compiled))
for name in ("vectors", "types"):
    torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-4)
print("equal")
"""


@pytest.mark.slow
@pytest.mark.parametrize("broken", [False, True], ids=["compiled", "no compiler"])
def test_a_compiled_decoder_gives_the_same_scores(broken: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCORES.format(broken=broken)], cwd=Path(__file__).parent,
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.stdout.strip() == "equal", done.stderr[-3000:]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own setting")
def test_memory_is_kept_where_the_library_can() -> None:
    assert keep_freed_memory()


def test_on_a_processor_128_crystals_are_decoded_at_once() -> None:
    assert largest_batch(small_model()) == 128
