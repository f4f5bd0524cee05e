"""Crystal Diffusion Variational Autoencoder: crystals to latents, and latents to crystals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["CDVAE", "Crystal", "CrystalBatch", "langevin"]

if TYPE_CHECKING:
    from cdvae_core import langevin
    from cdvae_core.crystal import Crystal, CrystalBatch
    from cdvae_core.model import CDVAE


def __getattr__(name: str) -> Any:
    """The public names, imported on first use: `cdvae data list` need not wait for torch."""
    if name == "CDVAE":
        from cdvae_core.model import CDVAE

        return CDVAE
    if name in ("Crystal", "CrystalBatch"):
        from cdvae_core import crystal

        return getattr(crystal, name)
    if name == "langevin":
        import cdvae_core.langevin as langevin

        return langevin
    raise AttributeError(f"module 'cdvae_core' has no attribute {name!r}")
