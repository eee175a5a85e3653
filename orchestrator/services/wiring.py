"""Builds the services of one application. Adding a service is one line here."""

from pathlib import Path

from orchestrator.files import Files
from orchestrator.services.agents.briefs import Briefs
from orchestrator.services.agents.digests import Digests
from orchestrator.services.agents.search import Search
from orchestrator.services.agents.similar import SimilarIdeas
from orchestrator.services.core.credentials import Credentials
from orchestrator.services.core.experiments import Experiments
from orchestrator.services.core.jobs import Jobs
from orchestrator.services.core.judge import Judge
from orchestrator.services.core.pool import Pool
from orchestrator.services.core.race import Race
from orchestrator.services.core.reaper import Reaper
from orchestrator.services.core.sessions import Sessions
from orchestrator.services.core.sources import Sources
from orchestrator.services.core.steering import Steering
from orchestrator.services.core.timing import PoolTiming
from orchestrator.services.core.wakeups import Wakeups
from orchestrator.services.dashboard.comparison import Comparisons
from orchestrator.services.dashboard.history import Histories
from orchestrator.services.dashboard.monitoring import Monitoring
from orchestrator.services.dashboard.overview import Overviews
from orchestrator.services.dashboard.reports import Reports
from orchestrator.services.dashboard.response_cache import ResponseCache
from orchestrator.services.dashboard.series import SeriesReports
from orchestrator.settings import Settings
from orchestrator.store.connection import Store


class Services:
    def __init__(self, store: Store, settings: Settings, files: Files) -> None:
        sources = Sources(files, settings.repo)
        race = Race(store, files, sources)
        timing = PoolTiming(settings)
        judge = Judge(store, race)
        self.store = store
        self.files = files
        token = settings.token.get_secret_value() if settings.token else None
        self.credentials = Credentials(store, token)
        self.sessions = Sessions(store, self.credentials)
        # A blocking read must end well before its connection times out.
        self.wakeups = Wakeups(store.events, min(2.0, settings.redis_timeout_seconds / 2))
        self.digests = Digests(store, files)
        self.pool = Pool(store, files, sources, timing, settings)
        self.experiments = Experiments(
            store,
            files,
            judge,
            self.wakeups,
            sources,
            self.pool,
            self.digests.attached,
            _prepare_py(settings),
        )
        self.jobs = Jobs(store, files, judge, self.wakeups, timing, settings)
        self.reaper = Reaper(store, judge, self.jobs, race, timing)
        self.steering = Steering(store, judge, race)
        self.similar = SimilarIdeas(store, files, settings.paths)
        self.search = Search(store, self.similar)
        self.briefs = Briefs(store, self.pool)
        self.reports = Reports(store, self.pool, settings)
        self.histories = Histories(store)
        self.overviews = Overviews(store, files, self.histories, timing, settings.home)
        self.comparisons = Comparisons(store, self.histories)
        self.response_cache = ResponseCache(store.events)
        self.series = SeriesReports(store, self.histories, self.response_cache)
        self.monitoring = Monitoring(store, timing)


def _prepare_py(settings: Settings) -> Path | None:
    """The prepare.py that tags pin: as set, or that of the checkout this code is in."""
    if settings.prepare_py is not None:
        return settings.prepare_py
    in_checkout = Path(__file__).resolve().parents[2] / "prepare.py"
    return in_checkout if in_checkout.is_file() else None
