"""Every knob of the student and of the candidate sources."""

from typing import Any, Literal

from pydantic import Field

from rankline.contracts import FrozenModel
from rankline.runtime.memory import halved_settings


class DistillConfig(FrozenModel):
    """How the two-tower student, the candidate sources and the scorer are made."""

    max_history: int = Field(50, ge=2, description="Events of a history that the student sees.")
    layers: int = Field(2, ge=1, description="Transformer blocks of the history tower.")
    heads: int = Field(2, ge=1, description="Attention heads of the history tower.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout in the towers.")
    own_dropout: float = Field(
        0.1, ge=0, lt=1, description="How often an item's own vector is hidden, so its words must do."
    )
    from_teacher: bool = Field(
        True, description="Begin with the teacher's item vectors and tower where their shapes agree."
    )
    epochs: int = Field(30, ge=1, description="Most passes over the users for the towers.")
    batch_size: int = Field(32, ge=1, description="User windows in one step.")
    requests_per_step: int = Field(64, ge=1, description="Requests with soft teacher scores in one step.")
    learning_rate: float = Field(2e-3, gt=0, description="Peak learning rate of the towers.")
    warm_up: float = Field(0.05, ge=0, lt=1, description="Share of training in which the rate rises.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay of the towers.")
    gradient_clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    soft_weight: float = Field(0.2, ge=0, description="Weight of the teacher's soft scores beside the ground truth.")
    temperature: float = Field(2.0, gt=0, description="Softens the teacher's scores (Hinton et al. 2015).")
    sampled_items: int = Field(
        0,
        ge=0,
        description="Items drawn for the softmax, corrected for popularity; a step then touches few others. 0 takes "
        "the whole catalogue, too much above 50,000.",
    )
    evaluate_every: int = Field(5, ge=1, description="Epochs between looks at the validation requests.")
    patience: int = Field(3, ge=1, description="Looks without improvement before training stops early.")
    train_encoder: bool = Field(
        False,
        description="Train the encoder on queries and what answers them; for a few thousand queries and more, or a "
        "language of its own. False keeps it frozen, which is faster and safer with little data.",
    )
    encoder_learning_rate: float = Field(2e-5, gt=0, description="Peak learning rate of the encoder.")
    encoder_items_per_step: int = Field(
        48, ge=1, description="Items whose words are encoded with gradients in one step; fewer take less memory."
    )
    encoder_layer_decay: float = Field(
        1.0, gt=0, le=1, description="Factor of the encoder's learning rate for every layer further down."
    )
    encoder_frozen_layers: int = Field(
        0, ge=0, description="Lowest layers of the encoder, its embeddings with them, that stay as they are."
    )
    peft: Literal["none", "lora", "rslora", "dora", "loha", "ia3", "bitfit"] = Field(
        "none",
        description="Train small adapters in the encoder instead of all its weights; merged before it is handed on.",
    )
    peft_rank: int = Field(8, ge=1, description="Rank of the adapters (lora, rslora, dora, loha).")
    peft_alpha: int = Field(16, ge=1, description="Scale of the adapters: what they add counts alpha/rank times.")
    peft_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the adapters (lora, rslora, dora).")
    peft_targets: list[str] = Field(
        [], description="Names of the linear layers that get adapters; empty: those usual for the encoder's family."
    )
    likeness: float = Field(
        20.0,
        gt=0,
        description="Product of two fused vectors of the same words, to begin with, where there are queries.",
    )
    stemmer: str = Field(
        "", description="Snowball stemmer for BM25's words, such as english; empty for none (Chinese, mixed languages)."
    )
    bm25_k1: float = Field(0.9, ge=0, description="What repeating a word is worth in BM25.")
    bm25_b: float = Field(0.4, ge=0, le=1, description="What a long text costs in BM25.")
    calibrate: Literal["none", "closed", "open"] = Field(
        "none",
        description="Make scores into chances: closed where one candidate is always right (labels), open where "
        "perhaps none is (answers), which also finds the score below which the model abstains.",
    )
    answer_precision: float = Field(
        0.8, gt=0, lt=1, description="Share of right answers among those given that abstention aims at (open)."
    )
    calibration_folds: int = Field(5, ge=2, description="Parts of the validation requests, each judged by the others.")
    covisit_window: int = Field(
        30, ge=2, description="Pairs of events fewer than this many steps apart count as seen together."
    )
    covisit_step_decay: float = Field(
        0.1,
        ge=0,
        description="How fast a pair's weight falls with the events between: 1 / (1 + this * steps).",
    )
    covisit_neighbours: int = Field(200, ge=1, description="Neighbours kept of each item.")
    covisit_decay: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Weight of a history event per step back in time, in serving and training.",
    )
    candidates_per_source: int = Field(150, ge=10, description="Items each source proposes for a request.")
    scorer_pair: int = Field(4, ge=1, description="Numbers that the scorer boils left, item and left*item down to.")
    scorer_hidden: int = Field(8, ge=2, description="Hidden units of the scorer's deep part.")
    scorer_begins: Literal["auto", "towers", "nothing"] = Field(
        "auto",
        description="What the scorer's first score is before it learns: the towers' own, or nothing, so that all "
        "sources are weighed anew. auto is towers where there are no users: few queries teach little about mixing.",
    )
    scorer_epochs: int = Field(20, ge=1, description="Passes over the validation requests for the scorer.")
    scorer_batch_size: int = Field(64, ge=1, description="Requests in one step of the scorer.")
    scorer_learning_rate: float = Field(5e-3, gt=0, description="Peak learning rate of the scorer.")
    scorer_weight_decay: float = Field(2.0, ge=0, description="AdamW weight decay of the scorer.")
    scorer_dropout: float = Field(0.2, ge=0, lt=1, description="Dropout in the scorer.")
    scorer_soft_weight: float = Field(
        0.1, ge=0, description="Weight of the teacher's soft scores in the scorer's loss."
    )
    like_weight: float = Field(0.3, ge=0, description="Weight of the like head (rating of 4 or more).")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to train.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="What a trained encoder computes in; auto is bf16 where the processor has it."
    )
    seed: int = Field(0, ge=0, description="Seed of everything random.")

    def smaller(self) -> dict[str, tuple[Any, Any]]:
        """Setting -> (its value, what takes less memory), the most effective first."""
        told: dict[str, tuple[Any, Any]] = {} if self.sampled_items else {"sampled_items": (0, 2000)}
        if self.train_encoder and self.peft == "none":
            told["peft"] = ("none", "lora")
        names = ["encoder_items_per_step"] if self.train_encoder else []
        return told | halved_settings(
            self, *names, "requests_per_step", "batch_size", "max_history", "scorer_batch_size", "covisit_neighbours"
        )
