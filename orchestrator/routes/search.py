"""`/api/search`: strategy and suggestions."""

from orchestrator import schemas
from orchestrator.routes import problems
from orchestrator.routes.deps import FromQuery, ServicesDep, TagQuery

router = problems.router(prefix="/api/search", tags=["search"])


@router.post("/strategy")
async def strategy(body: schemas.TagRequest, services: ServicesDep) -> schemas.Strategy:
    return await services.search.strategy(body.tag)


@router.get("/strategy")
async def strategy_by_query(query: TagQuery, services: ServicesDep) -> schemas.Strategy:
    return await services.search.strategy(query.tag)


@router.post("/set-strategy")
async def set_strategy(body: schemas.SetStrategyRequest, services: ServicesDep) -> schemas.Strategy:
    return await services.search.set_strategy(body)


@router.post("/adapt")
async def adapt(body: schemas.TagRequest, services: ServicesDep) -> schemas.Strategy:
    return await services.search.adapt(body.tag)


@router.post("/suggest")
async def suggest(body: schemas.SuggestRequest, services: ServicesDep) -> schemas.Suggestion:
    return await services.search.suggest(body)


@router.get("/suggest")
async def suggest_by_query(
    query: FromQuery[schemas.SuggestRequest], services: ServicesDep
) -> schemas.Suggestion:
    return await services.search.suggest(query)


@router.post("/similar")
async def similar(body: schemas.SimilarRequest, services: ServicesDep) -> schemas.SimilarAnswer:
    return await services.similar.similar(body)


@router.get("/similar")
async def similar_by_query(
    query: FromQuery[schemas.SimilarRequest], services: ServicesDep
) -> schemas.SimilarAnswer:
    return await services.similar.similar(query)
