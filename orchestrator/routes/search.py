"""`/api/search`: strategy and suggestions."""

from orchestrator import schemas
from orchestrator.routes import problems
from orchestrator.routes.deps import ServicesDep, get_or_post

router = problems.router(prefix="/api/search", tags=["search"])


@get_or_post(router, "/strategy")
async def strategy(body: schemas.TagRequest, services: ServicesDep) -> schemas.Strategy:
    return await services.search.strategy(body.tag)


@router.post("/set-strategy")
async def set_strategy(body: schemas.SetStrategyRequest, services: ServicesDep) -> schemas.Strategy:
    return await services.search.set_strategy(body)


@router.post("/adapt")
async def adapt(body: schemas.TagRequest, services: ServicesDep) -> schemas.Strategy:
    return await services.search.adapt(body.tag)


@get_or_post(router, "/suggest")
async def suggest(body: schemas.SuggestRequest, services: ServicesDep) -> schemas.Suggestion:
    return await services.search.suggest(body)


@get_or_post(router, "/similar")
async def similar(body: schemas.SimilarRequest, services: ServicesDep) -> schemas.SimilarAnswer:
    return await services.similar.similar(body)
