"""What a run's time costs."""

from pydantic import Field

from rankline.contracts import FrozenModel


class SummaryConfig(FrozenModel):
    """Prices, for the run's cost."""

    core_hour: float = Field(0.05, ge=0, description="Price of one core for an hour.")
    gpu_hour: float = Field(2.0, ge=0, description="Price of one GPU for an hour.")
    gpus: dict[str, int] = Field({}, description="Step -> GPUs it holds while it runs.")
    currency: str = Field("USD", description="What the prices are in.")
