"""`autodl deploy`: bundles on a running cluster, by declaration: nothing restarts when versions or numbers change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from autodl_ray.cli.console import Console
from autodl_ray.errors import InputError

if TYPE_CHECKING:
    from autodl_ray.serve.goal import Goal
    from autodl_ray.serve.remote import Cluster

__all__ = ["deploy_app"]

_Address = Annotated[
    str | None, typer.Option(help="Dashboard of the cluster, http://HEAD:8265.  [default: $RAY_DASHBOARD_ADDRESS]")
]
_HELP = """Bundles on a running cluster: `deploy BUNDLE…`.

Examples:

    autodl deploy /shared/photos/bundle --address http://head:8265

    autodl deploy status
"""
_App = Annotated[str, typer.Option("--app", help="Name of the application.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


class _BundlesFirst(TyperGroup):
    """`autodl deploy FOLDER` is `autodl deploy up FOLDER`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the verb in front where there is none."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["up", *args]
        return super().parse_args(ctx, args)


def deploy_app() -> typer.Typer:
    """Build the commands below `autodl deploy`."""
    group = typer.Typer(name="deploy", cls=_BundlesFirst, no_args_is_help=True, help=_HELP)
    group.command(name="up")(_up)
    group.command(name="status")(_status)
    group.command(name="rollback")(_rollback)
    group.command(name="delete")(_delete)
    return group


def _up(
    context: typer.Context,
    bundles: Annotated[list[str], typer.Argument(help="Folders (or NAME=FOLDER) as every node sees them.")],
    address: _Address = None,
    app: _App = "autodl",
    share: Annotated[float, typer.Option(help="Of the request keys that a new version answers at first.")] = 0.1,
    shadow: Annotated[float, typer.Option(help="Of the other requests that it answers too, unseen.")] = 0.1,
    now: Annotated[bool, typer.Option("--now", help="New versions answer at once, without comparison.")] = False,
    min_requests: Annotated[int, typer.Option(help="Answers before a new version takes over.")] = 50,
    min_seconds: Annotated[float, typer.Option(help="Seconds before a new version takes over.")] = 10,
    host: Annotated[str, typer.Option(help="Where the proxies listen, at their first start.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Their port, at their first start.")] = 8000,
    min_replicas: Annotated[int | None, typer.Option(help="Replicas kept at all times.")] = None,
    max_replicas: Annotated[int | None, typer.Option(help="Replicas under load.")] = None,
    num_threads: Annotated[int | None, typer.Option(help="Threads of one replica.  [default: 1]")] = None,
    keys_file: Annotated[str | None, typer.Option(help="File of keys on every node.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until it runs.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the config and change nothing.")] = False,
    json_output: _Json = False,
) -> None:
    """Serve bundles on the cluster, or bring new versions of served ones in, without a restart or a lost request.

    Examples:

        autodl deploy /shared/photos/bundle --address http://head:8265

        autodl deploy photos=/shared/photos-2/bundle --share 0.2

        autodl deploy up /shared/photos/bundle --dry-run > serve.json
    """
    from autodl_ray.serve.remote import Cluster, deploy_config, without

    console: Console = context.obj
    cluster = None if dry_run and address is None else Cluster.of(address)
    deployed = [] if cluster is None else cluster.deployed()
    before = next((a for a in deployed if a["name"] == app), None)
    rules = {"min_requests": min_requests, "min_seconds": min_seconds}
    plan = None if now else {"share": share, "shadow": shadow, "rules": rules}
    scale = {"min_replicas": min_replicas, "max_replicas": max_replicas, "num_threads": num_threads}
    _check_exposure(host, keys_file)
    application = _application(bundles, before, app=app, plan=plan, scale=scale, keys_file=keys_file)
    if before is None and any(a.get("route_prefix") == "/" for a in deployed):
        application["route_prefix"] = f"/{app}"
    config = deploy_config([*without(deployed, app), application], host=host, port=port)
    if cluster is None or dry_run:
        typer.echo(json.dumps(config, indent=1))
        return
    cluster.put(config)
    if wait:
        cluster.wait(app)
    console.result({"app": app, "config": config})
    console.print(f"{app} is served; how new versions do: GET /v1/rollouts of the service, or autodl deploy status")


def _status(context: typer.Context, address: _Address = None, json_output: _Json = False) -> None:
    """Show the applications of the cluster and what they are to serve.

    Examples:

        autodl deploy status --json
    """
    from autodl_ray.serve.remote import Cluster, goal_of

    console: Console = context.obj
    found = Cluster.of(address).details().get("applications", {})
    rows, documents = [], []
    for name, entry in found.items():
        declared = entry.get("deployed_app_config") or {}
        replicas = sum(len(d.get("replicas", [])) for d in entry.get("deployments", {}).values())
        models = _served(goal_of(declared)) if _has_goal(declared) else []
        documents.append({"app": name, "status": entry.get("status"), "replicas": replicas, "models": models})
        rows.append([name, str(entry.get("status")), str(replicas), ", ".join(m["name"] for m in models)])
    console.result({"applications": documents})
    if not rows:
        console.print("Nothing is served on this cluster.")
        return
    console.table("applications", ["name", "status", "replicas", "models"], rows, left=["status", "models"])


def _rollback(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Of the model.")],
    address: _Address = None,
    app: _App = "autodl",
    json_output: _Json = False,
) -> None:
    """Take the newest version of a model back: the one before it answers again, without a restart.

    Examples:

        autodl deploy rollback photos
    """
    from autodl_ray.serve.remote import Cluster, goal_of

    console: Console = context.obj
    cluster = Cluster.of(address)
    application = _deployed(cluster, app)
    goal = goal_of(application).taken_back(name)
    _send(cluster, application, goal)
    console.result({"app": app, "model": name, "models": _served(goal)})
    console.print(f"the newest version of {name} is taken back")


def _delete(
    context: typer.Context,
    app: _App = "autodl",
    address: _Address = None,
    json_output: _Json = False,
) -> None:
    """Take an application off the cluster; others stay.

    Examples:

        autodl deploy delete --app autodl
    """
    from autodl_ray.serve.remote import Cluster, deploy_config, without

    console: Console = context.obj
    cluster = Cluster.of(address)
    _deployed(cluster, app)
    cluster.put(deploy_config(without(cluster.deployed(), app), host="127.0.0.1", port=8000))
    console.result({"deleted": app})
    console.print(f"{app} is taken off the cluster")


def _application(
    bundles: list[str],
    before: dict[str, Any] | None,
    *,
    app: str,
    plan: dict[str, Any] | None,
    scale: dict[str, int | None],
    keys_file: str | None,
) -> dict[str, Any]:
    """Return the application as it is to be: a new one, or the deployed one with other versions and numbers."""
    from autodl_ray.serve.bundles import check_bundles
    from autodl_ray.serve.goal import Goal
    from autodl_ray.serve.remote import application_config, goal_of
    from autodl_ray.serve.settings import with_options

    checked = [(bundle.name, str(bundle.folder)) for bundle in check_bundles(bundles)]
    args = {"keys_file": keys_file} if keys_file else {}
    if before is None:
        return application_config(app, Goal.of(checked), with_options(None, scale), args=args)
    goal = _changed(goal_of(before), checked, plan)
    spec = with_options({**before["args"].get("serve", {}), **_numbers(before)}, scale)
    new = application_config(app, goal, spec, args=args)
    fixed = {**before["args"], **args}
    if scale["num_threads"] is not None:
        fixed["serve"] = new["args"]["serve"]
    return {**new, "args": fixed}  # other arguments would restart the replicas


def _changed(goal: Goal, bundles: list[tuple[str, str]], plan: dict[str, Any] | None) -> Goal:
    from autodl_ray.serve.goal import ServedVersion
    from autodl_ray.serve.remote import next_version

    for name, folder in bundles:
        known = next((m for m in goal.models if m.name == name), None)
        if known is None:
            goal = type(goal)(models=(*goal.models, ServedVersion(name=name, bundle=folder)))
        elif plan is None:
            goal = goal.served_now(name, folder)
        elif folder != (known.next or (known.past or (known,))[-1]).bundle:  # else it is the newest version already
            goal = goal.with_next(name, next_version(folder, **plan))
    return goal


def _numbers(application: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of a deployed application that stand outside its arguments."""
    options = application["deployments"][0]
    scaling = options.get("autoscaling_config") or dict.fromkeys(
        ("min_replicas", "max_replicas"), options.get("num_replicas", 1)
    )
    names = (
        "min_replicas", "max_replicas", "target_ongoing_requests", "upscale_delay_s", "downscale_delay_s",
        "max_ongoing_requests", "max_queued_requests",
    )  # fmt: skip
    return {name: value for name in names if (value := {**options, **scaling}.get(name)) is not None}


def _send(cluster: Cluster, application: dict[str, Any], goal: Goal) -> None:
    from autodl_ray.serve.remote import deploy_config, without

    options = {**application["deployments"][0], "user_config": goal.model_dump(mode="json")}
    changed = {**application, "deployments": [options]}
    cluster.put(
        deploy_config([*without(cluster.deployed(), application["name"]), changed], host="127.0.0.1", port=8000)
    )


def _deployed(cluster: Cluster, app: str) -> dict[str, Any]:
    deployed = cluster.deployed()
    for application in deployed:
        if application["name"] == app:
            return application
    raise InputError(
        "There is no such application on the cluster.", seen=app, accepted=", ".join(a["name"] for a in deployed)
    )


def _has_goal(application: dict[str, Any]) -> bool:
    """Whether it is one of ours that follows a goal; one from a file may have bundles in its arguments alone."""
    ours = "autodl_ray" in str(application.get("import_path"))
    return ours and any(options.get("user_config") for options in application.get("deployments") or [])


def _served(goal: Goal) -> list[dict[str, Any]]:
    return [
        {"name": m.name, "bundle": m.bundle, "past": [p.bundle for p in m.past], "next": m.next and m.next.bundle}
        for m in goal.models
    ]


def _check_exposure(host: str, keys_file: str | None) -> None:
    from autodl_ray.serve.service import is_loopback

    if keys_file is None and not is_loopback(host):
        raise InputError(
            "Others could reach this host, and nobody would be asked for a key.",
            seen=f"host {host}",
            accepted="127.0.0.1, or any host with --keys-file",
            hint=f"autodl keys create NAME --file {Path('keys.json')}, and put the file on every node",
        )
