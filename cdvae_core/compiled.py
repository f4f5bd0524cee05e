"""The decoder through torch.compile, which fuses its elementwise steps.

It pays where one shape of batch is evaluated many times: compiling takes a while for each shape.
What it saves is in `benchmarks/README.md`. So nothing is compiled unless it is asked for.
"""

from __future__ import annotations

import torch

from cdvae_core.model import CDVAE


def compile_decoder(model: CDVAE, *, cuda_graphs: bool = False) -> None:
    """Compile the decoder for each new shape of a batch, in place.

    Where that fails (no C++ compiler, more shapes than are kept), it runs as it is written.

    Args:
        cuda_graphs: replay the whole evaluation as one CUDA graph, on a GPU and without gradients.
    """
    torch._dynamo.config.suppress_errors = True
    graphs = cuda_graphs and model.device.type == "cuda"
    model.decoder.compile(dynamic=False, mode="reduce-overhead" if graphs else None)
