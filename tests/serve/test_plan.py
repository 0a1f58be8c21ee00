"""What is decided and refused before anything starts."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from autodl_ray.artifacts import Store
from autodl_ray.errors import BundleError, InputError, ResourceError, SpecError
from autodl_ray.serve.bundles import check_bundles
from autodl_ray.serve.goal import NextVersion, parse_goal
from autodl_ray.serve.plan import plan_replicas
from autodl_ray.serve.rollout import RolloutRules
from autodl_ray.serve.scaling import Policy
from autodl_ray.serve.service import check_port, is_loopback, start
from autodl_ray.serve.settings import hash_key, read_api_key
from autodl_ray.spec import ServeSpec
from tests.serve.conftest import free_port
from tests.serve.tiny import make_bundle

GB = 1e9
RULES = frozenset(RolloutRules.model_fields)
LOAD = SimpleNamespace(
    raw_metrics=None, running_replicas=["r"], current_num_replicas=1, total_num_requests=5.0, total_queued_requests=2.0
)


@pytest.mark.parametrize(
    ("cpus", "replicas", "threads", "num_cpus", "line"),
    [
        (2, (1, 2), 1, 1.0, "1 to 2 replicas × 1 thread on 2 CPUs"),
        (1, (1, 2), 1, 0.5, "1 to 2 replicas × 1 thread on 1 CPU, which they share"),
        (4, (2, 2), 2, 2.0, "2 replicas × 2 threads on 4 CPUs"),
        (2, (1, 1), 8, 2.0, "1 replica × 2 threads on 2 CPUs (8 threads were asked for)"),
        (2, (1, 3), 2, 0.666, "1 to 3 replicas × 2 threads on 2 CPUs, which they share"),
    ],
)
def test_all_replicas_fit_at_once(
    cpus: float, replicas: tuple[int, int], threads: int, num_cpus: float, line: str
) -> None:
    spec = ServeSpec(min_replicas=replicas[0], max_replicas=replicas[1], num_threads=threads)
    plan = plan_replicas(spec, cpus=cpus, free_bytes=16 * GB)
    assert plan.num_cpus == pytest.approx(num_cpus)
    assert plan.line == line
    assert plan.num_cpus * plan.max_replicas <= cpus


def test_what_cannot_fit_is_refused() -> None:
    with pytest.raises(ResourceError, match="not enough CPUs") as no_cpus:
        plan_replicas(ServeSpec(), cpus=0.0, free_bytes=16 * GB)
    assert no_cpus.value.seen == "0 CPUs free, 2 replicas"
    with pytest.raises(ResourceError, match="not enough memory") as no_memory:
        plan_replicas(ServeSpec(max_replicas=50), cpus=4, free_bytes=4 * GB, model_bytes=0.1 * GB)
    assert no_memory.value.hint == "lower --max-replicas to 6"


def test_a_port_in_use_is_named_with_the_next_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ResourceError, match=f"Port {port} of 127.0.0.1 is in use.") as found:
            check_port("127.0.0.1", port)
    assert found.value.hint is not None
    check_port("127.0.0.1", int(found.value.hint.rsplit(" ", 1)[1]))
    for host in ("203.0.113.7", "a" * 70 + ".example"):
        with pytest.raises(InputError, match="not of this machine"):
            check_port(host, 8000)


def test_only_loopback_is_served_without_a_key(bundle: Path) -> None:
    assert [is_loopback(h) for h in ("127.0.0.1", "127.1.2.3", "localhost", "::1")] == [True] * 4
    assert [is_loopback(h) for h in ("0.0.0.0", "::", "192.168.1.4", "example.org")] == [False] * 4
    with pytest.raises(InputError, match="nobody would be asked for a key") as found:
        start([bundle], ServeSpec(host="0.0.0.0", port=free_port()))
    assert "--keys-file" in str(found.value)


def test_the_key_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key.txt"
    file.write_text("abc123\n")
    monkeypatch.delenv("AUTODL_API_KEY", raising=False)
    assert read_api_key(None) is None
    monkeypatch.setenv("AUTODL_API_KEY", "from-env")
    assert (read_api_key(None), read_api_key(file)) == ("from-env", "abc123")
    assert "abc123" not in hash_key("abc123")
    file.write_text("  \n")
    with pytest.raises(InputError, match="key is not usable"):
        read_api_key(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_api_key(tmp_path / "none.txt")


def test_bundles_are_named_checked_and_told_apart(bundle: Path, tmp_path: Path) -> None:
    first, second = check_bundles([bundle, f"again={bundle}"])
    assert (first.name, second.name, first.version) == ("colours", "again", "0123456789ab")
    assert first.model_bytes > 0
    with pytest.raises(InputError, match="same name") as same:
        check_bundles([bundle, bundle])
    assert same.value.hint == f"name one of them: colours-2={bundle}"
    with pytest.raises(InputError, match="cannot stand in a URL"):
        check_bundles([f"a/b={bundle}"])
    with pytest.raises(BundleError, match="There is no such bundle"):
        check_bundles([tmp_path / "none"])


def test_a_truncated_bundle_and_another_artifact_are_refused(tmp_path: Path) -> None:
    damaged = make_bundle(tmp_path)
    model = damaged / "model.onnx"
    model.write_bytes(model.read_bytes()[:-10])
    with pytest.raises(BundleError, match="truncated or was changed"):
        check_bundles([damaged])
    with Store(tmp_path).write("x", kind="sweep", spec_digest="", inputs={}, seed=0):
        pass
    with pytest.raises(BundleError, match="no model"):
        check_bundles([tmp_path / "x"])


def test_the_config_file_fits_ray_s_schema_and_builds(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.serve.schema import ServeDeploySchema

    from autodl_ray.serve.app import build
    from autodl_ray.serve.settings import SERVE_ENVIRONMENT

    monkeypatch.delenv("AUTODL_API_KEY", raising=False)
    text = (Path(__file__).parents[2] / "jobs" / "serve.yaml").read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    schema = ServeDeploySchema.model_validate(document)
    (application,) = schema.applications
    assert application.import_path == f"{build.__module__}:{build.__name__}"
    assert document["http_options"]["host"] == "127.0.0.1"
    assert document["controller_options"]["runtime_env"]["env_vars"] == SERVE_ENVIRONMENT
    deployment = build({**application.args, "bundles": [str(bundle)]})._bound_deployment
    (options,) = document["applications"][0]["deployments"]
    scaling = options["autoscaling_config"]
    assert Policy(**scaling["policy"]["policy_kwargs"])(LOAD) == (2, {})
    goal = parse_goal(options["user_config"])
    assert [f"{m.name}={m.bundle}" for m in goal.models] == application.args["bundles"]
    commented = [line.lstrip("# ") for line in text.split("# next:")[1].splitlines() if line.strip().startswith("#")]
    example = yaml.safe_load("\n".join(" " * 2 * (line.split(":")[0] in RULES) + line for line in commented))
    assert NextVersion.model_validate(example).rules == RolloutRules()
    assert deployment._deployment_config.backpressure_config.status_code == 429
    assert dict(deployment.init_kwargs)["bundles"] == (("colours", str(bundle)),)
    with pytest.raises(SpecError, match="arguments of the application are not valid") as wrong:
        build({"bundles": [], "serv": {}})
    assert "serv: Extra inputs are not permitted" in str(wrong.value)
