"""`autodl deploy`: what it declares, and what it asks of a cluster's dashboard."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ray.serve.schema import ServeDeploySchema

from autodl_ray.cli import main
from autodl_ray.serve.goal import parse_goal
from tests.serve.tiny import make_bundle

TOKEN = "t0ken"


class Dashboard(ThreadingHTTPServer):
    """What the dashboard of a cluster keeps: the config that was put, told again as Serve tells it."""

    config: dict[str, Any] | None = None


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Tell what was put."""
        applications = (self._server().config or {"applications": []})["applications"]
        told = {
            a["name"]: {"status": "RUNNING", "message": "", "deployed_app_config": a, "deployments": {}}
            for a in applications
        }
        self._answer(200, json.dumps({"applications": told}))

    def do_PUT(self) -> None:
        """Check and keep a config."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ServeDeploySchema.model_validate(body)
        self._server().config = body
        self._answer(200, "")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _server(self) -> Dashboard:
        assert isinstance(self.server, Dashboard)
        return self.server

    def _answer(self, status: int, text: str) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            status, text = (403 if "Authorization" in self.headers else 401), "no"
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dashboard]:
    """A dashboard on loopback that asks for a token."""
    server = Dashboard(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("RAY_DASHBOARD_ADDRESS", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


def run(capfd: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """Run `autodl deploy …` in this process and return what it prints."""
    with pytest.raises(SystemExit) as ended:
        main(["deploy", *arguments])
    out, err = capfd.readouterr()
    assert ended.value.code == code, err
    assert "Traceback" not in err
    return err if code else out


def goal_of(dashboard: Dashboard, name: str = "autodl") -> Any:
    """The goal that was declared."""
    assert dashboard.config is not None
    (application,) = [a for a in dashboard.config["applications"] if a["name"] == name]
    return parse_goal(application["deployments"][0]["user_config"])


def test_a_dry_run_needs_no_cluster_and_prints_a_config_of_serve(
    bundle: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_DASHBOARD_ADDRESS", raising=False)
    document = json.loads(run(capfd, f"paints={bundle}", "--dry-run", "--max-replicas", "3"))
    (application,) = ServeDeploySchema.model_validate(document).applications
    assert application.args["bundles"] == [f"paints={bundle}"]
    assert application.deployments[0].autoscaling_config["max_replicas"] == 3
    assert "The cluster is not named." in run(capfd, str(bundle), code=2)
    assert "nobody would be asked for a key" in run(capfd, str(bundle), "--dry-run", "--host", "0.0.0.0", code=2)


def test_versions_come_in_beside_others_and_go_back(
    dashboard: Dashboard, bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(capfd, str(bundle), "--max-replicas", "5")
    run(capfd, f"other={bundle}", "--app", "second")
    assert dashboard.config is not None
    first = next(a for a in dashboard.config["applications"] if a["name"] == "autodl")
    new = make_bundle(tmp_path / "2", version="second000000")
    run(capfd, str(new), "--share", "0.25", "--min-requests", "7")
    (model,) = goal_of(dashboard).models
    assert (model.bundle, model.next.bundle, model.next.share) == (str(bundle), str(new), 0.25)
    assert model.next.rules.min_requests == 7
    changed = next(a for a in dashboard.config["applications"] if a["name"] == "autodl")
    assert changed["args"] == first["args"]  # else Serve would replace the replicas
    assert changed["deployments"][0]["autoscaling_config"]["max_replicas"] == 5
    assert goal_of(dashboard, "second").models[0].name == "other"
    third = make_bundle(tmp_path / "3", version="third0000000")
    run(capfd, str(third))
    assert [p.bundle for p in goal_of(dashboard).models[0].past] == [str(new)]
    run(capfd, "rollback", "colours")
    assert goal_of(dashboard).models[0].next is None
    run(capfd, "rollback", "colours")
    assert goal_of(dashboard).models[0].model_dump()["past"] == ()
    run(capfd, str(third), "--now")
    assert goal_of(dashboard).models[0].bundle == str(third)
    table = run(capfd, "status")
    assert "second" in table
    assert "RUNNING" in table
    run(capfd, "delete", "--app", "second")
    assert [a["name"] for a in dashboard.config["applications"]] == ["autodl"]


def test_what_is_wrong_is_said(
    dashboard: Dashboard, bundle: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no such application" in run(capfd, "rollback", "colours", code=2)
    run(capfd, str(bundle))
    assert "There is no such model." in run(capfd, "rollback", "nobody", code=2)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    assert "The token is not the cluster's." in run(capfd, "status", code=2)
    assert "no URL" in run(capfd, "status", "--address", "head:8265", code=2)
    for address in ("http://127.0.0.1:1", "http://127.0.0.1:82x65"):
        assert "does not answer" in run(capfd, "status", "--address", address, code=2)


def test_a_version_on_its_way_in_answers_now_when_told_so(
    dashboard: Dashboard, bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(capfd, str(bundle))
    new = make_bundle(tmp_path / "2", version="second000000")
    for _ in range(2):
        run(capfd, str(new))
    assert (goal_of(dashboard).models[0].next.bundle, goal_of(dashboard).models[0].past) == (str(new), ())
    run(capfd, str(new), "--now")
    assert (goal_of(dashboard).models[0].bundle, goal_of(dashboard).models[0].next) == (str(new), None)


def test_numbers_that_are_not_valid_are_said(
    dashboard: Dashboard, bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = run(capfd, str(bundle), "--min-replicas", "5", "--max-replicas", "2", code=2)
    assert "min_replicas 5 is above max_replicas 2" in said
    run(capfd, str(bundle), "--min-replicas", "5")
    assert dashboard.config is not None
    assert dashboard.config["applications"][0]["deployments"][0]["num_replicas"] == 5
    new = make_bundle(tmp_path / "2", version="second000000")
    assert "share: Input should be less than or equal to 1" in run(capfd, str(new), "--share", "2", code=2)
    assert "There is no version to take back." in run(capfd, "rollback", "colours", code=2)


def test_an_application_from_a_file_without_settings_or_goal(
    dashboard: Dashboard, bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(capfd, str(bundle))
    assert dashboard.config is not None
    (application,) = dashboard.config["applications"]
    del application["args"]["serve"]
    new = make_bundle(tmp_path / "2", version="second000000")
    run(capfd, str(new))
    assert goal_of(dashboard).models[0].next.bundle == str(new)
    del dashboard.config["applications"][0]["deployments"][0]["user_config"]
    assert "RUNNING" in run(capfd, "status")
    assert "What is to be served is not valid." in run(capfd, str(bundle), code=2)


def test_another_server_is_no_dashboard(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_Handler, "do_GET", lambda self: self._answer(200, "<html>"))
    assert "This is not the dashboard of a cluster." in run(capfd, "status", code=2)
