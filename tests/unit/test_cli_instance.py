"""Runs on the command line: killed ones are closed, and the platform's own words are what is printed."""

from __future__ import annotations

from types import SimpleNamespace

import dagster as dg
import psutil
import pytest

from fraud_platform.cli.instance import PROCESS_TAG, _message, _process_tag, close_dead_runs


@pytest.mark.parametrize(
    ("tag", "closed"),
    [("1:1.00", 1), (_process_tag(psutil.Process()), 0), (None, 0)],
    ids=["another process has the id now", "alive", "somebody else's run"],
)
def test_a_run_whose_process_is_gone_is_closed(tag: str | None, closed: int) -> None:
    """A killed run stayed STARTED and held the warehouse's pool for ever."""
    with dg.DagsterInstance.ephemeral() as instance:
        tags = {} if tag is None else {PROCESS_TAG: tag}
        run = dg.DagsterRun(job_name="learning", status=dg.DagsterRunStatus.STARTED, tags=tags)
        instance.add_run(run)
        assert close_dead_runs(instance) == closed
        is_failed = instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
        assert is_failed == bool(closed)


def test_the_platform_s_own_error_is_told_and_not_its_cause() -> None:
    root = SimpleNamespace(cls_name="BinderException", message="Binder Error: LINE 1", cause=None)
    own = SimpleNamespace(
        cls_name="SourceError",
        message="fraud_platform.errors.SourceError: tx.csv lacks 'shop': add it\n",
        cause=root,
    )
    outer = SimpleNamespace(cls_name="DagsterExecutionStepExecutionError", message="step failed", cause=own)
    assert _message(outer) == "tx.csv lacks 'shop': add it"
    assert _message(root) == "Binder Error: LINE 1"
