"""`autodl models`: the zoo as a table."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from autodl_ray.cli.console import Console

if TYPE_CHECKING:
    from autodl_ray.models.matrix import Cell

__all__ = ["models"]


def models(
    context: typer.Context,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the models, their weights and the defaults they are trained with.

    Examples:

        autodl models

        autodl run photos/ --model resnet18 --set model.weights=none
    """
    from autodl_ray.models.matrix import read_matrix
    from autodl_ray.models.zoo import ZOO

    console: Console = context.obj
    entries = list(ZOO.values())
    console.table(
        "models",
        ["name", "input px", "weights", "licence", "lr", "what it is"],
        [[e.name, str(e.image_size), e.weights, e.licence, f"{e.lr:g}", e.doc] for e in entries],
    )
    matrix = read_matrix()
    formats = list(next(iter(matrix.values())))
    console.print()
    console.table(
        "formats: made here from random weights and held against the network (largest difference of a probability)",
        ["name", *formats],
        [[name, *(_shown(cells[form]) for form in formats)] for name, cells in matrix.items()],
    )
    console.result(
        {
            e.name: {
                "image_size": e.image_size,
                "weights": e.weights,
                "licence": e.licence,
                "lr": e.lr,
                "doc": e.doc,
                "recipe": dict(e.recipe),
                "formats": {form: asdict(cell) for form, cell in matrix.get(e.name, {}).items()},
                "param_space": {k: v.model_dump(mode="json") for k, v in e.param_space.items()},
            }
            for e in entries
        }
    )


def _shown(cell: Cell) -> str:
    if not cell.made:
        return "no"
    return cell.how if cell.max_difference is None else f"yes ({cell.max_difference:.0e})"
