"""Wire models: the request and answer bodies of the REST API, and nothing else.

gpu_worker uses these too, so this package imports pydantic only. Answers to workers may grow
fields: a worker ignores what it does not know. The rules say what a field means for the search.
"""

# ruff: noqa: F403 - callers write `schemas.Name`; the modules only divide the models by subject

from orchestrator.schemas.agents import *
from orchestrator.schemas.base import *
from orchestrator.schemas.dashboard import *
from orchestrator.schemas.experiments import *
from orchestrator.schemas.leases import *
from orchestrator.schemas.pool import *
from orchestrator.schemas.reports import *
from orchestrator.schemas.steering import *
from orchestrator.schemas.tokens import *
from orchestrator.schemas.verdicts import *
