"""Runs in MLflow: an MLflow experiment for each tag, an MLflow run for each experiment.

An experiment's id is a tag of its MLflow run, which is searched before a run is made. A run that is
not ended (the mirror died) is written again; the same values twice do no harm in MLflow. A run that
a person deleted there stays deleted.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orchestrator.cli.errors import CommandError, needs
from orchestrator.cli.mirror import SinkAwayError
from orchestrator.rules import sanitize
from orchestrator.schemas import ExperimentDetail, Verdict

if TYPE_CHECKING:
    from mlflow.entities import Run

_ID = "autoresearch.id"
_STATUS = {"keep": "FINISHED", "discard": "FINISHED", "crash": "FAILED", "timeout": "FAILED"}
_METRICS = (
    "val_bpb", "peak_vram_mb", "training_seconds", "total_tokens_m", "mfu_percent", "num_steps",
    "num_params_m", "depth",
)  # fmt: skip
_PARAMS = ("category", "seed", "time_budget_seconds", "commit_sha", "source_sha256",
           "prepare_sha256")  # fmt: skip
_BATCH = 900  # MLflow takes 1 000 metrics a call
_PAGE = 1000
# Errors that another try would not change.
_PERMANENT = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "ENDPOINT_NOT_FOUND"})


class MlflowSink:
    """`prefix` begins the name of each MLflow experiment; `source_of`, if given, reads a train.py
    that is stored as an artifact of its run. ConfigError if MLflow's client is not installed."""

    def __init__(self, tracking_uri: str, prefix: str, source_of: Any = None) -> None:
        self._uri = tracking_uri
        self._prefix = prefix
        self._source_of = source_of
        self._experiments: dict[str, str] = {}
        # MLflow's own retries would hide for minutes that the server is away.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        needs("mlflow", "the mirror needs MLflow's client", "mlflow")
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        self._client = MlflowClient(tracking_uri)

    def known(self, tag: str) -> set[str]:
        with _translated(self._uri):
            runs = self._search(tag, "attributes.status != 'RUNNING'")
            return {run.data.tags[_ID] for run in runs if _ID in run.data.tags}

    def put(self, detail: ExperimentDetail) -> bool:
        with _translated(self._uri):
            found = next(self._search(detail.tag, f"tags.`{_ID}` = '{detail.id}'"), None)
            if found is not None and found.info.status != "RUNNING":
                return False
            run = found or self._client.create_run(
                self._experiment(detail.tag),
                start_time=_milliseconds(detail.started_at or detail.created_at),
                tags=tags_of(detail),
                run_name=sanitize.line(detail.description or detail.id, 120),
            )
            self._fill(run.info.run_id, detail)
            end = _ended(detail)
            self._client.set_terminated(run.info.run_id, _STATUS[detail.status], end)
            return True

    def _fill(self, run_id: str, detail: ExperimentDetail) -> None:
        from mlflow.entities import Metric, Param

        metrics = [Metric(*values) for values in metrics_of(detail)]
        params = [Param(name, value) for name, value in params_of(detail).items()]
        self._client.log_batch(run_id, params=params)
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + _BATCH])
        if self._source_of is not None and detail.source_sha256:
            self._client.log_text(run_id, self._source_of(detail.id), "train.py")

    def _search(self, tag: str, condition: str) -> "Iterator[Run]":
        """Runs of a tag, the deleted ones included."""
        from mlflow.entities import ViewType

        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment(tag)], condition, ViewType.ALL, _PAGE, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _experiment(self, tag: str) -> str:
        """The tag's experiment in MLflow, by id; created if there is none."""
        if tag not in self._experiments:
            name = f"{self._prefix}{tag}"
            found = self._client.get_experiment_by_name(name)
            if found is not None and found.lifecycle_stage == "deleted":
                raise CommandError(
                    f"MLflow's experiment '{name}' was deleted there: restore it, or choose "
                    "another name with --prefix"
                )
            made = found.experiment_id if found else self._client.create_experiment(name)
            self._experiments[tag] = str(made)
        return self._experiments[tag]


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Raise MLflow's exceptions as ours."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        words = f"MLflow at {sanitize.line(uri.rpartition('@')[2], 200)}: {error}"
        if error.error_code in _PERMANENT:
            raise CommandError(words) from error
        raise SinkAwayError(f"{sanitize.line(words, 500)}.") from error


def tags_of(detail: ExperimentDetail) -> dict[str, str]:
    """All facts in words. MLflow's page shows them, so a run's own text is sanitized."""
    texts = (detail.hypothesis, detail.diff_summary, detail.error)
    tags = {
        _ID: detail.id,
        "autoresearch.tag": detail.tag,
        "autoresearch.status": detail.status,
        "autoresearch.reason": "stopped early" if detail.stopped_early else detail.reason,
        "autoresearch.parent": detail.parent_id,
        "autoresearch.gpu": detail.gpu_id,
        "mlflow.user": "autoresearch",
        "mlflow.source.name": "train.py",
        "mlflow.note.content": sanitize.block("\n\n".join(filter(None, texts)), 4000),
    }
    return {name: value for name, value in tags.items() if value}


def params_of(detail: ExperimentDetail) -> dict[str, str]:
    values = {name: getattr(detail, name) for name in _PARAMS} | detail.environment.model_dump()
    known = {name: value for name, value in values.items() if value is not None}
    return {name: sanitize.line(str(value), 500) for name, value in known.items()}


def metrics_of(detail: ExperimentDetail) -> list[tuple[str, float, int, int]]:
    """Key, value, time in milliseconds, step: the results, and the learning curve as `loss`."""
    end = _ended(detail)
    start = _milliseconds(detail.started_at or detail.created_at)
    measured = [
        (name, float(value), end, 0)
        for name in _METRICS
        if (value := getattr(detail, name)) is not None
    ]
    if isinstance(detail.verdict, Verdict) and detail.best_val_bpb_before is not None:
        measured.append(("improvement", detail.verdict.delta, end, 0))
    if detail.predicted_val_bpb is not None:
        measured.append(("predicted_val_bpb", detail.predicted_val_bpb, end, 0))
    # A run that ended by itself has trained for less than its budget.
    trained = detail.training_seconds or detail.time_budget_seconds
    curve = [("loss", p.loss, int(start + p.percent * 10 * trained), p.step) for p in detail.curve]
    return measured + curve


def _ended(detail: ExperimentDetail) -> int:
    """When the training ended: under `race` a verdict may come much later."""
    return _milliseconds(detail.attempts[-1].ended_at if detail.attempts else detail.finished_at)


def _milliseconds(moment: str | None) -> int:
    if moment is None:
        return 0
    return int(datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp() * 1000)
