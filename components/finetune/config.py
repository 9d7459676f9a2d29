"""The settings of finetune."""

from typing import Any, Literal

from pydantic import Field

from rankline.contracts import FrozenModel
from rankline.runtime.memory import halved_settings


class FinetuneConfig(FrozenModel):
    """How the teacher is trained."""

    encoder: str = Field(
        "tiny",
        description="Folder or URL (file://, s3://, https://…) of a Hugging Face encoder, `hub:name` for one on the "
        "Hugging Face hub, `fresh`: a larger random one for a language that no encoder covers, or `tiny`: a small "
        "random one for tests.",
    )
    encoder_revision: str | None = Field(None, description="Revision (commit or tag) of an encoder on the hub.")
    encoder_sha256: str | None = Field(
        None, description="SHA-256 of the encoder's model.safetensors, checked before training; required for a URL."
    )
    encoder_cache: str = Field(
        "{workspace}/material/encoders", description="Where a downloaded encoder is stored for later runs."
    )
    pooling: Literal["mean", "cls"] = Field(
        "mean", description="How a text's tokens become its vector: their mean, or the first token."
    )
    adapt_steps: int = Field(
        0, ge=0, description="Steps of masked language modelling on the catalogue's texts before training; 0 is off."
    )
    adapt_batch_size: int = Field(32, ge=1, description="Texts per step of adaptation.")
    adapt_learning_rate: float = Field(5e-5, gt=0, description="Peak learning rate of adaptation.")
    adapt_mask_share: float = Field(0.15, gt=0, lt=1, description="Share of the tokens that are masked in adaptation.")
    adapt_whole_words: bool = Field(True, description="Mask all pieces of a word together in adaptation.")
    train_encoder: bool = Field(
        False, description="Train the encoder jointly with the language-model loss; false keeps it frozen."
    )
    language_weight: float = Field(
        0.1, ge=0, description="alpha in L = L_P + alpha * L_M: weight of the masked-language-model loss."
    )
    encoder_items_per_step: int = Field(32, ge=1, description="Items encoded with gradients per step (joint training).")
    encoder_learning_rate: float = Field(2e-5, gt=0, description="Peak learning rate of the encoder.")
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
    max_tokens: int = Field(32, ge=4, le=512, description="Tokens of an item's text; the rest is cut off.")
    vector_size: int = Field(64, ge=8, description="Size of the fused item vectors.")
    max_history: int = Field(50, ge=2, description="Events of a history that the tower reads.")
    layers: int = Field(2, ge=1, description="Transformer blocks over the history.")
    heads: int = Field(2, ge=1, description="Attention heads.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout in all parts of the teacher.")
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
    epochs: int = Field(40, ge=1, description="Maximum number of passes over the users.")
    warm_start: bool = Field(
        False, description="Start from the champion's weights where they fit, with items matched by their ids."
    )
    warm_epochs: int = Field(
        0, ge=0, description="Maximum number of passes over the users in a warm start; 0 is the value of epochs."
    )
    teachers: int = Field(
        1, ge=1, le=16, description="Number of teachers, each with its own seed; the student learns from their mean."
    )
    crop_chance: float = Field(0.0, ge=0, le=1, description="Probability of cropping a history.")
    crop_share: float = Field(0.6, gt=0, le=1, description="Share of a history that cropping keeps.")
    mask_chance: float = Field(0.0, ge=0, le=1, description="Probability of masking events of a history.")
    mask_share: float = Field(0.3, gt=0, lt=1, description="Share of the events that masking hides.")
    reorder_chance: float = Field(0.0, ge=0, le=1, description="Probability of shuffling a part of a history.")
    reorder_share: float = Field(0.2, gt=0, le=1, description="Length of the shuffled part, as a share of the history.")
    batch_size: int = Field(32, ge=1, description="User windows per step.")
    accumulate: int = Field(
        1, ge=1, description="Parts that a step is computed in, one after another: less memory, the same result."
    )
    requests_per_step: int = Field(32, ge=1, description="Requests with candidates per step.")
    negatives: int = Field(96, ge=1, description="Sampled negatives per step, shared by its requests.")
    shown_weight: float = Field(
        1.0, ge=0, description="Weight of ranking a target above what was shown with it and not chosen."
    )
    sampled_items: int = Field(
        0,
        ge=0,
        description="Items sampled for the next-item loss; 0 takes the whole catalogue, too slow above 50,000 items.",
    )
    learning_rate: float = Field(2e-3, gt=0, description="Peak learning rate.")
    warm_up: float = Field(0.05, ge=0, lt=1, description="Share of training during which the learning rate rises.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay.")
    gradient_clip: float = Field(1.0, gt=0, description="Maximum norm of the gradient.")
    next_item_weight: float = Field(
        1.0, ge=0, description="Weight of the next-item loss over the whole catalogue at every position."
    )
    like_weight: float = Field(0.3, ge=0, description="Weight of the like head (rating of 4 or more).")
    evaluate_every: int = Field(5, ge=1, description="Epochs between two validations.")
    patience: int = Field(3, ge=1, description="Validations without improvement before training stops early.")
    soft_candidates: int = Field(
        64, ge=2, description="Candidates per request that the teacher scores for the student."
    )
    rankings_depth: int = Field(100, ge=10, description="Length of the rankings written for evaluation.")
    stemmer: str = Field(
        "",
        description="Snowball stemmer of the BM25 that finds candidates for queries, such as english; empty for none.",
    )
    pair_epochs: int = Field(2, ge=1, description="Passes of the cross-encoder over the train queries.")
    pair_train_requests: int = Field(
        0, ge=0, description="Train queries per pass of the cross-encoder, sampled anew for each pass; 0 is all."
    )
    pair_requests: int = Field(8, ge=1, description="Queries per step of the cross-encoder.")
    pair_negatives: int = Field(
        3, ge=1, description="Negatives per query of the cross-encoder; fewer take less memory."
    )
    pair_valid_requests: int = Field(
        100, ge=1, description="Validation queries whose candidates are reranked after each pass, which is slow."
    )
    pair_tokens: int = Field(96, ge=8, le=512, description="Tokens of a query and an item together.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to train.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Precision of a jointly trained encoder; auto is bf16 where the hardware supports it."
    )
    compile: bool = Field(
        False, description="Compile the networks with torch.compile; the result says whether it worked."
    )
    processes: int = Field(
        1, ge=0, description="Training processes on this machine, started by torchrun; 0 is one per GPU."
    )
    seed: int = Field(0, ge=0, description="Random seed.")

    def smaller(self) -> dict[str, tuple[Any, Any]]:
        """Setting -> (its value, a value that takes less memory), the most effective first."""
        reductions: dict[str, tuple[Any, Any]] = {}
        if self.train_encoder and self.peft == "none":
            reductions["peft"] = ("none", "lora")
        if not self.sampled_items:
            reductions["sampled_items"] = (0, 2000)
        reductions["accumulate"] = (self.accumulate, self.accumulate * 4)
        names = ["adapt_batch_size"] if self.adapt_steps else []
        names += ["encoder_items_per_step", "max_tokens"] if self.train_encoder or self.adapt_steps else []
        return reductions | halved_settings(
            self, *names, "batch_size", "requests_per_step", "negatives", "max_history", "vector_size"
        )
