"""The settings of distill."""

from typing import Any, Literal

from pydantic import Field

from rankline.contracts import FrozenModel
from rankline.runtime.memory import halved_settings


class DistillConfig(FrozenModel):
    """How the two-tower student, the candidate sources and the scorer are trained."""

    max_history: int = Field(50, ge=2, description="Events of a history that the student reads.")
    layers: int = Field(2, ge=1, description="Transformer blocks of the history tower.")
    heads: int = Field(2, ge=1, description="Attention heads of the history tower.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout in the towers.")
    own_dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Probability of dropping an item's own embedding in training, so that its text has to suffice.",
    )
    profile_dropout: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="Probability of dropping a declared feature of the user or of the request in training, so that a "
        "request may leave it out; and of dropping all of a request.",
    )
    from_teacher: bool = Field(
        True, description="Start from the teacher's item vectors and tower where their shapes agree."
    )
    epochs: int = Field(30, ge=1, description="Maximum number of passes over the users for the towers.")
    batch_size: int = Field(32, ge=1, description="User windows per step.")
    requests_per_step: int = Field(64, ge=1, description="Requests with soft labels per step.")
    learning_rate: float = Field(2e-3, gt=0, description="Peak learning rate of the towers.")
    warm_up: float = Field(0.05, ge=0, lt=1, description="Share of training during which the learning rate rises.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay of the towers.")
    gradient_clip: float = Field(1.0, gt=0, description="Maximum norm of the gradient.")
    soft_weight: float = Field(0.2, ge=0, description="Weight of the teacher's soft labels beside the ground truth.")
    temperature: float = Field(2.0, gt=0, description="Softens the teacher's scores (Hinton et al. 2015).")
    shown_weight: float = Field(
        1.0, ge=0, description="Weight of ranking a target above what was shown with it and not chosen."
    )
    sampled_items: int = Field(
        0,
        ge=0,
        description="Items sampled for the softmax, corrected for popularity; a step then touches few others. 0 takes "
        "the whole catalogue, too slow above 50,000 items.",
    )
    evaluate_every: int = Field(5, ge=1, description="Epochs between two validations.")
    patience: int = Field(3, ge=1, description="Validations without improvement before training stops early.")
    train_encoder: bool = Field(
        False,
        description="Train the encoder on queries and their answers, for a few thousand queries or more, or unusual "
        "language. False keeps it frozen, which is faster and safer with little data.",
    )
    encoder_learning_rate: float = Field(2e-5, gt=0, description="Peak learning rate of the encoder.")
    encoder_items_per_step: int = Field(
        48, ge=1, description="Items encoded with gradients per step; fewer take less memory."
    )
    encoder_layer_decay: float = Field(
        1.0, gt=0, le=1, description="Factor of the encoder's learning rate from each layer to the next lower one."
    )
    encoder_frozen_layers: int = Field(
        0, ge=0, description="Number of lowest layers of the encoder that are frozen, together with its embeddings."
    )
    peft: Literal["none", "lora", "rslora", "dora", "loha", "ia3", "bitfit"] = Field(
        "none", description="Train small adapters in the encoder instead of all its weights; merged before saving."
    )
    peft_rank: int = Field(8, ge=1, description="Rank of the adapters (lora, rslora, dora, loha).")
    peft_alpha: int = Field(16, ge=1, description="Scale of the adapters: their output is multiplied by alpha/rank.")
    peft_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the adapters (lora, rslora, dora).")
    peft_targets: list[str] = Field(
        [],
        description="Names of the linear layers that get adapters; empty for the usual ones of the encoder's family.",
    )
    likeness: float = Field(
        20.0, gt=0, description="Initial product of two item vectors with the same text, where there are queries."
    )
    stemmer: str = Field(
        "", description="Snowball stemmer of BM25, such as english; empty for none (Chinese, mixed languages)."
    )
    bm25_k1: float = Field(0.9, ge=0, description="Term frequency saturation of BM25.")
    bm25_b: float = Field(0.4, ge=0, le=1, description="Length normalization of BM25.")
    calibrate: Literal["none", "closed", "open"] = Field(
        "none",
        description="Turn scores into probabilities: closed where one candidate is always right (labels), open where "
        "there may be none (answers), which also finds the threshold below which the model abstains.",
    )
    answer_precision: float = Field(
        0.8,
        gt=0,
        lt=1,
        description="Target share of correct answers among those given, for the abstention threshold (open).",
    )
    calibration_folds: int = Field(5, ge=2, description="Folds of the validation requests for calibration.")
    covisit_window: int = Field(
        30, ge=2, description="Pairs of events fewer than this many steps apart count as co-visits."
    )
    covisit_step_decay: float = Field(
        0.1, ge=0, description="Decay of a pair's weight with the number of steps between: 1 / (1 + this * steps)."
    )
    covisit_neighbours: int = Field(200, ge=1, description="Co-visited neighbours kept per item.")
    covisit_decay: float = Field(
        0.9, gt=0, le=1, description="Weight of a history event per step back in time, in serving and training."
    )
    candidates_per_source: int = Field(150, ge=10, description="Items each source proposes for a request.")
    scorer_pair: int = Field(
        4, ge=1, description="Size of the scorer's interaction layer over left, item and left*item."
    )
    scorer_hidden: int = Field(8, ge=2, description="Hidden units of the scorer's deep part.")
    scorer_choice: Literal["auto", "fusion", "source", "mix", "scorer"] = Field(
        "auto",
        description="What ranks: plain fusion of the sources, the best single one, their weights fitted to the "
        "validation requests, or the scorer that learns on from there. auto takes the "
        "fitted weights unless another is clearly better on requests that it did not see.",
    )
    scorer_folds: int = Field(3, ge=2, description="Folds of the requests by which auto chooses what ranks.")
    scorer_epochs: int = Field(20, ge=1, description="Passes over the validation requests for the scorer.")
    scorer_batch_size: int = Field(64, ge=1, description="Requests per step of the scorer.")
    scorer_learning_rate: float = Field(5e-3, gt=0, description="Peak learning rate of the scorer.")
    scorer_weight_decay: float = Field(2.0, ge=0, description="AdamW weight decay of the scorer.")
    scorer_dropout: float = Field(0.2, ge=0, lt=1, description="Dropout in the scorer.")
    scorer_soft_weight: float = Field(
        0.0, ge=0, description="Weight of the teacher's soft labels in the scorer's loss; 0 saves their time."
    )
    like_weight: float = Field(
        0.3, ge=0, description="Weight of the like head (rating of 4 or more), which a model without labels has."
    )
    label_epochs: int = Field(
        10, ge=1, description="Passes over the validation impressions for the heads of the declared labels."
    )
    label_batch_size: int = Field(512, ge=1, description="Impressions per step of the labels' heads.")
    label_learning_rate: float = Field(5e-3, gt=0, description="Peak learning rate of the labels' heads.")
    label_weight_decay: float = Field(0.1, ge=0, description="AdamW weight decay of the labels' heads.")
    label_dropout: float = Field(0.2, ge=0, lt=1, description="Dropout in the labels' heads.")
    label_hidden: int = Field(16, ge=2, description="Size of the layers that the labels share.")
    position_bias: bool = Field(
        True,
        description="Learn what an item's position adds to the chance of a label, in training only: an answer gives "
        "the chance in the mean over the positions of the log.",
    )
    order: str = Field(
        "",
        description="What answers are sorted by, from the values of heads and numbers of items, such as "
        "0.2*click + purchase*price; empty for the rank head.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to train.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Precision of a trained encoder; auto is bf16 where the hardware supports it."
    )
    seed: int = Field(0, ge=0, description="Random seed.")

    def smaller(self) -> dict[str, tuple[Any, Any]]:
        """Setting -> (its value, a value that takes less memory), the most effective first."""
        reductions: dict[str, tuple[Any, Any]] = {} if self.sampled_items else {"sampled_items": (0, 2000)}
        if self.train_encoder and self.peft == "none":
            reductions["peft"] = ("none", "lora")
        names = ["encoder_items_per_step"] if self.train_encoder else []
        return reductions | halved_settings(
            self, *names, "requests_per_step", "batch_size", "max_history", "scorer_batch_size", "covisit_neighbours"
        )
