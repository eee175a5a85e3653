"""Wire models: every request and answer body of the REST contract, and nothing else.

gpu_worker speaks these too, so this package imports pydantic only. Answers to workers may grow
fields: a worker ignores what it does not know. What a field means for the search is said in the
rules, not here.
"""

from orchestrator.schemas.base import (
    BODY_LIMIT_BYTES as BODY_LIMIT_BYTES,
    SOURCE_LIMIT_BYTES as SOURCE_LIMIT_BYTES,
    Action as Action,
    Amount as Amount,
    Answer as Answer,
    Category as Category,
    CommitSha as CommitSha,
    Count as Count,
    ExperimentId as ExperimentId,
    GpuId as GpuId,
    Mode as Mode,
    Name as Name,
    Number as Number,
    Problem as Problem,
    PublicStatus as PublicStatus,
    Request as Request,
    RequiredText as RequiredText,
    Seed as Seed,
    Sha256 as Sha256,
    TagName as TagName,
    Text as Text,
    ValBpb as ValBpb,
)
from orchestrator.schemas.experiments import (
    AnyVerdict as AnyVerdict,
    Best as Best,
    BestAnswer as BestAnswer,
    CompleteRequest as CompleteRequest,
    CrashRequest as CrashRequest,
    CrashVerdict as CrashVerdict,
    HistoryAnswer as HistoryAnswer,
    HistoryRequest as HistoryRequest,
    Metrics as Metrics,
    NearMiss as NearMiss,
    NearMissAnswer as NearMissAnswer,
    NearMissRequest as NearMissRequest,
    Record as Record,
    RegisterAnswer as RegisterAnswer,
    RegisterRequest as RegisterRequest,
    SetupAnswer as SetupAnswer,
    SetupRequest as SetupRequest,
    TagInfo as TagInfo,
    TagRequest as TagRequest,
    Verdict as Verdict,
)
from orchestrator.schemas.leases import (
    ClaimAnswer as ClaimAnswer,
    ClaimRequest as ClaimRequest,
    FinishAnswer as FinishAnswer,
    FinishRequest as FinishRequest,
    Job as Job,
    LeaseAnswer as LeaseAnswer,
    LeaseRequest as LeaseRequest,
    LogChunk as LogChunk,
    ProgressRequest as ProgressRequest,
    RenewRequest as RenewRequest,
)
from orchestrator.schemas.overview import (
    Alert as Alert,
    CurrentRun as CurrentRun,
    GpuOverview as GpuOverview,
    LastKeep as LastKeep,
    OverviewAnswer as OverviewAnswer,
    OverviewRequest as OverviewRequest,
    SinceCounts as SinceCounts,
    SparkPoint as SparkPoint,
    TagCounts as TagCounts,
    TagOverview as TagOverview,
)
from orchestrator.schemas.pool import (
    AcquireAnswer as AcquireAnswer,
    AcquireRequest as AcquireRequest,
    DeregisterAnswer as DeregisterAnswer,
    GpuRequest as GpuRequest,
    Health as Health,
    HealthAnswer as HealthAnswer,
    HeartbeatRequest as HeartbeatRequest,
    Ok as Ok,
    PoolAnswer as PoolAnswer,
    RegisterGpuAnswer as RegisterGpuAnswer,
    RegisterGpuRequest as RegisterGpuRequest,
    ReleaseAnswer as ReleaseAnswer,
    ReleaseRequest as ReleaseRequest,
    Timing as Timing,
    TrainOnGpuAnswer as TrainOnGpuAnswer,
    TrainOnGpuRequest as TrainOnGpuRequest,
    Worker as Worker,
)
from orchestrator.schemas.queue import (
    Attempt as Attempt,
    CancelAnswer as CancelAnswer,
    CurvePoint as CurvePoint,
    Environment as Environment,
    ExperimentDetail as ExperimentDetail,
    Lease as Lease,
    SubmitAnswer as SubmitAnswer,
    SubmitRequest as SubmitRequest,
)
from orchestrator.schemas.reports import (
    DiffAnswer as DiffAnswer,
    DiffRequest as DiffRequest,
    DiffSide as DiffSide,
    PoolCounts as PoolCounts,
    ProgressionPoint as ProgressionPoint,
    SummaryAnswer as SummaryAnswer,
    SummaryBest as SummaryBest,
    SummaryStats as SummaryStats,
    TagsAnswer as TagsAnswer,
    TsvAnswer as TsvAnswer,
)
from orchestrator.schemas.search import (
    CategoryStats as CategoryStats,
    SetStrategyRequest as SetStrategyRequest,
    Strategy as Strategy,
    Suggestion as Suggestion,
)
from orchestrator.schemas.surroundings import (
    Noise as Noise,
    Related as Related,
    Surroundings as Surroundings,
)
