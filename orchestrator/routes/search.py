"""`/api/search`: strategy and suggestions."""

from typing import Annotated

from fastapi import Query

from orchestrator import schemas
from orchestrator.routes import problems
from orchestrator.routes.deps import SearchDep, SimilarDep, TagQuery

router = problems.router(prefix="/api/search", tags=["search"])


@router.post("/strategy")
async def strategy(body: schemas.TagRequest, service: SearchDep) -> schemas.Strategy:
    return await service.strategy(body.tag)


@router.get("/strategy")
async def strategy_by_query(query: TagQuery, service: SearchDep) -> schemas.Strategy:
    return await service.strategy(query.tag)


@router.post("/set-strategy")
async def set_strategy(body: schemas.SetStrategyRequest, service: SearchDep) -> schemas.Strategy:
    return await service.set_strategy(body)


@router.post("/adapt")
async def adapt(body: schemas.TagRequest, service: SearchDep) -> schemas.Strategy:
    return await service.adapt(body.tag)


@router.post("/suggest")
async def suggest(body: schemas.SuggestRequest, service: SearchDep) -> schemas.Suggestion:
    return await service.suggest(body)


@router.get("/suggest")
async def suggest_by_query(
    query: Annotated[schemas.SuggestRequest, Query()], service: SearchDep
) -> schemas.Suggestion:
    return await service.suggest(query)


@router.post("/similar")
async def similar(body: schemas.SimilarRequest, service: SimilarDep) -> schemas.SimilarAnswer:
    return await service.similar(body)


@router.get("/similar")
async def similar_by_query(
    query: Annotated[schemas.SimilarRequest, Query()], service: SimilarDep
) -> schemas.SimilarAnswer:
    return await service.similar(query)
