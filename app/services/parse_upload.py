"""Run by itself: one uploaded file from standard input to JSON on standard output.

The argument `cif` says that the file calls itself one; without, it is looked at.

Parsing happens in a process of its own, because a hostile file may take forever or all memory.
"""

from __future__ import annotations

import json
import sys

from cdvae_core.errors import CdvaeError

MEMORY = 4 * 2**30  # bytes of address space, libraries included


def main() -> None:
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    from cdvae_core.data.preprocess import crystal_nn_edges
    from cdvae_core.structures import from_structure, niggli, parse_cif, parse_poscar, to_structure

    answer: dict[str, object]
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
        is_cif = sys.argv[1:] == ["cif"] or "_cell_length" in text
        parse = parse_cif if is_cif else parse_poscar
        crystal = from_structure(niggli(to_structure(parse(text))))
        source, target, image = crystal_nn_edges(crystal)
    except UnicodeDecodeError:
        answer = {"error": "the file is not text"}
    except (CdvaeError, ValueError, ArithmeticError) as error:
        answer = {"error": str(error)}
    else:
        answer = {
            "atomic_numbers": crystal.atomic_numbers.tolist(),
            "frac_coords": crystal.frac_coords.tolist(),
            "lattice": crystal.lattice.tolist(),
            "edges": [source.tolist(), target.tolist(), image.tolist()],
        }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
