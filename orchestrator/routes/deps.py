"""The services as FastAPI dependencies."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query, Request

from orchestrator import schemas
from orchestrator.errors import Invalid
from orchestrator.services.agents.briefs import Briefs
from orchestrator.services.agents.digests import Digests
from orchestrator.services.agents.search import Search
from orchestrator.services.agents.similar import SimilarIdeas
from orchestrator.services.core.experiments import Experiments
from orchestrator.services.core.jobs import Jobs
from orchestrator.services.core.pool import Pool
from orchestrator.services.core.steering import Steering
from orchestrator.services.core.wakeups import Wakeups
from orchestrator.services.dashboard.comparison import Comparisons
from orchestrator.services.dashboard.history import Histories
from orchestrator.services.dashboard.monitoring import Monitoring
from orchestrator.services.dashboard.overview import Overviews
from orchestrator.services.dashboard.reports import Reports
from orchestrator.services.dashboard.response_cache import ResponseCache
from orchestrator.services.dashboard.series import SeriesReports
from orchestrator.sessions import Sessions
from orchestrator.store.connection import Store

MAX_WAIT_SECONDS = 300


@dataclass(frozen=True)
class Services:
    """All services of one application."""

    store: Store
    experiments: Experiments
    digests: Digests
    jobs: Jobs
    pool: Pool
    reports: Reports
    overviews: Overviews
    comparison: Comparisons
    search: Search
    similar: SimilarIdeas
    briefs: Briefs
    series: SeriesReports
    histories: Histories
    response_cache: ResponseCache
    steering: Steering
    wakeups: Wakeups
    monitoring: Monitoring
    sessions: Sessions | None


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _experiments(request: Request) -> Experiments:
    return (await _services(request)).experiments


async def _digests(request: Request) -> Digests:
    return (await _services(request)).digests


async def _jobs(request: Request) -> Jobs:
    return (await _services(request)).jobs


async def _pool(request: Request) -> Pool:
    return (await _services(request)).pool


async def _reports(request: Request) -> Reports:
    return (await _services(request)).reports


async def _overviews(request: Request) -> Overviews:
    return (await _services(request)).overviews


async def _comparison(request: Request) -> Comparisons:
    return (await _services(request)).comparison


async def _search(request: Request) -> Search:
    return (await _services(request)).search


async def _similar(request: Request) -> SimilarIdeas:
    return (await _services(request)).similar


async def _briefs(request: Request) -> Briefs:
    return (await _services(request)).briefs


async def _series(request: Request) -> SeriesReports:
    return (await _services(request)).series


async def _steering(request: Request) -> Steering:
    return (await _services(request)).steering


async def _sessions(request: Request) -> Sessions | None:
    return (await _services(request)).sessions


ServicesDep = Annotated[Services, Depends(_services)]
ExperimentsDep = Annotated[Experiments, Depends(_experiments)]
BriefsDep = Annotated[Briefs, Depends(_briefs)]
DigestsDep = Annotated[Digests, Depends(_digests)]
JobsDep = Annotated[Jobs, Depends(_jobs)]
PoolDep = Annotated[Pool, Depends(_pool)]
ReportsDep = Annotated[Reports, Depends(_reports)]
SimilarDep = Annotated[SimilarIdeas, Depends(_similar)]
OverviewsDep = Annotated[Overviews, Depends(_overviews)]
ComparisonsDep = Annotated[Comparisons, Depends(_comparison)]
SearchDep = Annotated[Search, Depends(_search)]
SeriesDep = Annotated[SeriesReports, Depends(_series)]
SessionsDep = Annotated[Sessions | None, Depends(_sessions)]
SteeringDep = Annotated[Steering, Depends(_steering)]


def only(*names: str) -> Any:
    """A dependency that refuses query parameters other than `names`: a misspelt `wait` must not
    pass silently."""

    known = ", ".join(names) or "none"

    async def check(request: Request) -> None:
        for name in request.query_params:
            if name not in names:
                raise Invalid(f"No such query parameter: {name}; known here: {known}.")

    return Depends(check)


WaitSeconds = Annotated[
    float, Query(ge=0, le=MAX_WAIT_SECONDS, allow_inf_nan=False, description="long poll, seconds")
]
TagQuery = Annotated[schemas.TagRequest, Query()]
