"""The settings of export."""

from typing import Any, Literal

from pydantic import Field

from rankline.contracts import FrozenModel
from rankline.runtime.memory import halved_settings


class ExportConfig(FrozenModel):
    """How the student becomes a bundle."""

    recipe: str = Field("", description="Name of the recipe for the manifest.")
    catalogue: str = Field(
        "", description="Name of the catalogue that the models of this recipe rank; a workspace serves one catalogue."
    )
    opset: int = Field(20, ge=18, le=22, description="ONNX operator set.")
    fuse: bool = Field(True, description="Fuse attention and normalisation of the text tower for ONNX Runtime.")
    int8: bool = Field(True, description="Write an int8 text tower (dynamic quantization, for CPUs).")
    fp16: bool = Field(True, description="Write fp16 graphs (for GPUs).")
    index: Literal["auto", "exact", "hnsw"] = Field(
        "auto", description="Nearest-neighbour index; auto is exact below 100,000 items, HNSW from there on."
    )
    hnsw_links: int = Field(32, ge=4, description="Links per item in the HNSW graph.")
    hnsw_search: int = Field(128, ge=8, description="Breadth of the HNSW search.")
    parity_samples: int = Field(256, ge=8, description="Inputs on which each graph is compared with torch.")
    max_difference: float = Field(
        1e-3, gt=0, description="Maximum fp32 difference from torch; a larger one stops the export."
    )
    canaries: int = Field(5, ge=1, description="Test requests with expected scores in the bundle.")

    def smaller(self) -> dict[str, tuple[Any, Any]]:
        """Setting -> (its value, a value that takes less memory), the most effective first."""
        reductions: dict[str, tuple[Any, Any]] = {
            name: (True, False) for name in ("fp16", "int8") if getattr(self, name)
        }
        if self.index != "exact":
            reductions["index"] = (self.index, "exact")
        return halved_settings(self, "parity_samples", minimum=8) | reductions
