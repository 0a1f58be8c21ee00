"""The versions in one replica: follows the goal, brings new versions in beside the old, and acts on what is decided."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autodl_ray.artifacts.bundle import open_bundle
from autodl_ray.errors import AutoDLError
from autodl_ray.serve.board import Board
from autodl_ray.serve.engine import Engine, NextModel, ServedModel
from autodl_ray.serve.goal import Goal, NextVersion, ServedVersion, parse_goal
from autodl_ray.serve.rollout import Seen, Verdict, decide

__all__ = ["Versions"]

_TICK_S = 0.5


@dataclass
class _Rollout:
    """A rollout as this replica takes part in it."""

    name: str
    plan: NextVersion
    stage: str = "trying"
    reason: str = ""
    version: str = ""


class Versions:
    """Keeps an engine at what is to be served. A version that cannot be served never touches the one that is.

    Args:
        engine: What answers.
        board: Shared with the other replicas.
        replica: Name of this one.
        open_model: Opens a bundle: (name, folder) → model.
        try_model: Says what is wrong with a bundle, or None; see :func:`autodl_ray.serve.trial.try_bundle`.
    """

    def __init__(
        self,
        engine: Engine,
        board: Board,
        *,
        replica: str,
        open_model: Callable[[str, str], ServedModel],
        try_model: Callable[[str], str | None],
    ) -> None:
        self._engine, self._board, self._replica = engine, board, replica
        self._open, self._try = open_model, try_model
        self._lock = threading.Lock()
        self._rollouts: dict[str, _Rollout] = {}
        self._errors: dict[str, str] = {}

    def apply(self, value: Any) -> None:
        """Follow a goal (JSON-like). Returns once what is served is right; a new version comes in meanwhile.

        Nothing is raised: what is wrong with a goal stands in :meth:`state`, and what was served goes on.
        """
        with self._lock:
            try:
                goal = parse_goal(value)
            except AutoDLError as error:
                self._errors[""] = str(error)
                return
            self._errors = {}
            for wanted in goal.models:
                self._follow(wanted)
            self._drop({m.name for m in goal.models}, goal)
            self._engine.sweep()

    def state(self) -> dict[str, Any]:
        """Return what is served and how each rollout stands."""
        models = {}
        for name, model in self._engine.models.items():
            rollout = self._rollouts.get(name)
            models[name] = {
                "version": model.version,
                "next": None
                if rollout is None
                else {
                    "version": rollout.version,
                    "rollout": rollout.plan.rollout,
                    "stage": rollout.stage,
                    "reason": rollout.reason,
                },
            }
        return {"models": models, "errors": dict(self._errors)}

    def _follow(self, wanted: ServedVersion) -> None:
        plan, bundle, verdict = wanted.next, wanted.bundle, None
        for step in (*wanted.past, *([] if plan is None else [plan])):
            verdict = self._board.verdict(step.rollout)
            if verdict is not None and verdict.decision == "promote":
                bundle = step.bundle
        self._serve(wanted.name, bundle)
        known = self._rollouts.get(wanted.name)
        if plan is None:
            self._end(wanted.name)
        elif known is None or known.plan != plan:
            self._end(wanted.name)
            rollout = self._rollouts[wanted.name] = _Rollout(wanted.name, plan)
            if verdict is None:
                threading.Thread(target=self._bring_in, args=(rollout,), name="rollout", daemon=True).start()
            else:
                self._note(rollout, verdict)

    def _serve(self, name: str, bundle: str) -> None:
        """See that this bundle answers; the old one goes on where it does not."""
        now = self._engine.models.get(name)
        try:
            if now is not None and open_bundle(bundle, verify=False)[1].version == now.version:
                return
            wrong = self._try(bundle)
            if wrong is None:
                self._engine.take_over(self._open(name, bundle))
            else:
                self._errors[name] = wrong
        except AutoDLError as error:
            self._errors[name] = str(error)
        except Exception as error:  # of the runtime, when it opens the model or answers with it
            self._errors[name] = f"{type(error).__name__}: {error}"

    def _drop(self, names: set[str], goal: Goal) -> None:
        kept = {name: model for name, model in self._engine.models.items() if name in names}
        if not kept or len(kept) == len(self._engine.models):
            return
        for name in set(self._engine.models) - names:
            self._end(name)
        self._engine.keep(kept, default=next(m.name for m in goal.models if m.name in kept))

    def _end(self, name: str) -> None:
        self._rollouts.pop(name, None)
        self._engine.withdraw(name)

    def _bring_in(self, rollout: _Rollout) -> None:
        """Try the new version, let it answer its share, and watch until it is decided."""
        plan = rollout.plan
        model = None
        try:
            wrong = self._try(plan.bundle)
            if wrong is None:
                model = self._open(rollout.name, plan.bundle)
        except AutoDLError as error:
            wrong = str(error)
        except Exception as error:  # of the runtime, when it opens the model or answers with it
            wrong = f"{type(error).__name__}: {error}"
        if model is None:
            self._note(rollout, self._board.settle(plan.rollout, Verdict("roll back", f"not served: {wrong}")))
            return
        rollout.version = model.version
        following = NextModel(model, plan.rollout, plan.share, plan.shadow)
        with self._lock:
            if self._rollouts.get(rollout.name) is not rollout:
                return
            self._engine.offer(following)
            rollout.stage = "answering its share"
        self._watch(rollout, following)

    def _watch(self, rollout: _Rollout, following: NextModel) -> None:
        while self._rollouts.get(rollout.name) is rollout:
            verdict = self._board.verdict(rollout.plan.rollout) or self._judge(rollout, following)
            if verdict.decision != "hold":
                self._act(rollout, following, self._board.settle(rollout.plan.rollout, verdict))
                return
            rollout.reason = verdict.reason
            time.sleep(_TICK_S)

    def _judge(self, rollout: _Rollout, following: NextModel) -> Verdict:
        board, identity = self._board, rollout.plan.rollout
        seconds = time.monotonic() - following.since
        mine = {"old": following.old.to_json(), "new": following.model.seen.to_json(), "seconds": seconds}
        board.report(identity, self._replica, mine)
        reports = board.reports(identity)
        old, new = (Seen.total(report[side] for report in reports) for side in ("old", "new"))
        return decide(old, new, rollout.plan.rules, seconds=max(report["seconds"] for report in reports))

    def _act(self, rollout: _Rollout, following: NextModel, verdict: Verdict) -> None:
        with self._lock:
            if self._rollouts.get(rollout.name) is not rollout:
                return
            if verdict.decision == "promote":
                self._engine.take_over(following.model)
            else:
                self._engine.withdraw(rollout.name)
            self._note(rollout, verdict)
        for _ in range(20):  # requests under way with the version that left end within moments
            time.sleep(_TICK_S)
            self._engine.sweep()

    def _note(self, rollout: _Rollout, verdict: Verdict) -> None:
        rollout.stage = {"promote": "took over", "roll back": "rolled back", "hold": "held"}[verdict.decision]
        rollout.reason = verdict.reason
