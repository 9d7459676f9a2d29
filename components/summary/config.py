"""The settings of summary."""

from pydantic import Field

from rankline.contracts import FrozenModel


class SummaryConfig(FrozenModel):
    """The prices that a run's cost is computed from."""

    core_hour: float = Field(0.05, ge=0, description="Price of one core for an hour.")
    gpu_hour: float = Field(2.0, ge=0, description="Price of one GPU for an hour.")
    gpus: dict[str, int] = Field({}, description="Step -> number of GPUs it uses.")
    currency: str = Field("USD", description="Currency of the prices.")
