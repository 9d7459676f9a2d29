"""Every knob of the teacher."""

from typing import Literal

from pydantic import Field

from rankline.contracts import Frozen


class FinetuneConfig(Frozen):
    """How the teacher is trained."""

    encoder: str = Field(
        "tiny", description="Folder of a Hugging Face encoder, or `tiny`: a small random one, for tests."
    )
    encoder_sha256: str | None = Field(
        None, description="What the encoder's model.safetensors must hash to; checked before training."
    )
    train_encoder: bool = Field(
        False, description="Train the encoder jointly with the language-model loss; false keeps it frozen."
    )
    language_weight: float = Field(
        0.1, ge=0, description="alpha in L = L_P + alpha * L_M: weight of the masked-language-model loss."
    )
    encoder_items_per_step: int = Field(
        32, ge=1, description="Items whose words are encoded with gradients in one step (joint training)."
    )
    encoder_learning_rate: float = Field(2e-5, gt=0, description="Peak learning rate of the encoder.")
    max_tokens: int = Field(32, ge=4, le=512, description="Tokens of an item's words; the rest is cut off.")
    vector_size: int = Field(64, ge=8, description="Size of the fused item vectors.")
    max_history: int = Field(50, ge=2, description="Events of a history that the tower sees.")
    layers: int = Field(2, ge=1, description="Transformer blocks over the history.")
    heads: int = Field(2, ge=1, description="Attention heads.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout everywhere in the teacher.")
    own_dropout: float = Field(
        0.1, ge=0, lt=1, description="How often an item's own vector is hidden, so its words must do."
    )
    epochs: int = Field(40, ge=1, description="Most passes over the users.")
    batch_size: int = Field(32, ge=1, description="User windows in one step.")
    requests_per_step: int = Field(32, ge=1, description="Requests with candidates in one step.")
    negatives: int = Field(96, ge=1, description="Sampled candidates beside the target, shared by a step.")
    learning_rate: float = Field(2e-3, gt=0, description="Peak learning rate.")
    warm_up: float = Field(0.05, ge=0, lt=1, description="Share of training in which the rate rises.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay.")
    gradient_clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    next_item_weight: float = Field(
        1.0, ge=0, description="Weight of the next-item loss over the whole catalogue at every position."
    )
    like_weight: float = Field(0.3, ge=0, description="Weight of the like head (rating of 4 or more).")
    evaluate_every: int = Field(5, ge=1, description="Epochs between looks at the validation requests.")
    patience: int = Field(3, ge=1, description="Looks without improvement before training stops early.")
    soft_candidates: int = Field(
        64, ge=2, description="Candidates of each request whose teacher scores the student learns from."
    )
    rankings_depth: int = Field(100, ge=10, description="Length of the rankings written for evaluation.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to train.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="What a jointly trained encoder computes in; auto is bf16 where the processor has it."
    )
    seed: int = Field(0, ge=0, description="Seed of everything random.")
