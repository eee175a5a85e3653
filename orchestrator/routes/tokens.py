"""`/api/token`: an admin makes, lists and revokes tokens."""

from orchestrator import schemas
from orchestrator.routes import problems
from orchestrator.routes.deps import ServicesDep

router = problems.router(prefix="/api/token", tags=["tokens"])


@router.post("/create")
async def create(
    body: schemas.CreateTokenRequest, services: ServicesDep
) -> schemas.CreateTokenAnswer:
    """Only this answer shows the secret, and it is not stored for an Idempotency-Key."""
    return await services.credentials.create(body)


@router.get("/list")
async def list_tokens(services: ServicesDep) -> schemas.TokensAnswer:
    return await services.credentials.list()


@router.post("/revoke")
async def revoke(
    body: schemas.RevokeTokenRequest, services: ServicesDep
) -> schemas.RevokeTokenAnswer:
    return await services.credentials.revoke(body)
