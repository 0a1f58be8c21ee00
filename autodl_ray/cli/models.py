"""`autodl models`: the zoo as a table."""

from __future__ import annotations

from typing import Annotated

import typer

from autodl_ray.cli.console import Console

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
    from autodl_ray.models.zoo import ZOO

    console: Console = context.obj
    entries = list(ZOO.values())
    console.table(
        "models",
        ["name", "input px", "weights", "licence", "lr", "what it is"],
        [[e.name, str(e.image_size), e.weights, e.licence, f"{e.lr:g}", e.doc] for e in entries],
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
                "param_space": {k: v.model_dump(mode="json") for k, v in e.param_space.items()},
            }
            for e in entries
        }
    )
