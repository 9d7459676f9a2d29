"""Every knob of the teacher."""

from typing import Any, Literal

from pydantic import Field

from rankline.contracts import FrozenModel
from rankline.runtime.memory import halved_settings


class FinetuneConfig(FrozenModel):
    """How the teacher is trained."""

    encoder: str = Field(
        "tiny",
        description="Folder or URL (file://, s3://, https://…) of a Hugging Face encoder, `hub:name` for one of the "
        "model hub, or `tiny`: a small random one, for tests.",
    )
    encoder_revision: str | None = Field(None, description="Revision (commit or tag) of an encoder of the hub.")
    encoder_sha256: str | None = Field(
        None,
        description="What the encoder's model.safetensors must hash to; checked before training, asked for by a URL.",
    )
    encoder_cache: str = Field(
        "{workspace}/material/encoders", description="Where an encoder that came from afar is kept for later runs."
    )
    pooling: Literal["mean", "cls"] = Field(
        "mean", description="How a text's tokens become its vector: their mean, or the first token's."
    )
    adapt_steps: int = Field(
        0, ge=0, description="Steps of language modelling on the catalogue's own words before anything else; 0 is off."
    )
    adapt_batch_size: int = Field(32, ge=1, description="Texts in one step of adaptation.")
    adapt_learning_rate: float = Field(5e-5, gt=0, description="Peak learning rate of adaptation.")
    adapt_mask_share: float = Field(0.15, gt=0, lt=1, description="Share of the tokens to be guessed in adaptation.")
    adapt_whole_words: bool = Field(True, description="Hide all pieces of a word together in adaptation.")
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
    encoder_layer_decay: float = Field(
        1.0, gt=0, le=1, description="Factor of the encoder's learning rate for every layer further down."
    )
    encoder_frozen_layers: int = Field(
        0, ge=0, description="Lowest layers of the encoder, its embeddings with them, that stay as they are."
    )
    peft: Literal["none", "lora", "rslora", "dora", "loha", "ia3", "bitfit"] = Field(
        "none", description="Train small adapters in the encoder instead of all its weights; merged before saving."
    )
    peft_rank: int = Field(8, ge=1, description="Rank of the adapters (lora, rslora, dora, loha).")
    peft_alpha: int = Field(16, ge=1, description="Scale of the adapters: what they add counts alpha/rank times.")
    peft_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the adapters (lora, rslora, dora).")
    peft_targets: list[str] = Field(
        [], description="Names of the linear layers that get adapters; empty: those usual for the encoder's family."
    )
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
    warm_start: bool = Field(
        False, description="Begin with the champion's weights where they fit, items found again by their ids."
    )
    warm_epochs: int = Field(
        0, ge=0, description="Most passes over the users where it begins with the champion's weights; 0 is epochs."
    )
    teachers: int = Field(
        1, ge=1, le=16, description="Teachers trained from seeds of their own; the student learns from their mean."
    )
    crop_chance: float = Field(0.0, ge=0, le=1, description="How often a history is cut to a part of it.")
    crop_share: float = Field(0.6, gt=0, le=1, description="How much of a history is kept where it is cut.")
    mask_chance: float = Field(0.0, ge=0, le=1, description="How often some events of a history are hidden.")
    mask_share: float = Field(0.3, gt=0, lt=1, description="How many events are hidden where some are.")
    reorder_chance: float = Field(0.0, ge=0, le=1, description="How often a part of a history is shuffled.")
    reorder_share: float = Field(0.2, gt=0, le=1, description="How long the shuffled part is.")
    batch_size: int = Field(32, ge=1, description="User windows in one step.")
    accumulate: int = Field(
        1, ge=1, description="Parts a step is computed in, one after another: less memory, the same step."
    )
    requests_per_step: int = Field(32, ge=1, description="Requests with candidates in one step.")
    negatives: int = Field(96, ge=1, description="Sampled candidates beside the target, shared by a step.")
    sampled_items: int = Field(
        0, ge=0, description="Items drawn for the next-item loss; 0 takes the whole catalogue, too much above 50,000."
    )
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
    stemmer: str = Field(
        "",
        description="Snowball stemmer of the BM25 that finds candidates for queries, such as english; empty for none.",
    )
    pair_epochs: int = Field(2, ge=1, description="Passes of the cross-encoder over the train queries.")
    pair_train_requests: int = Field(
        0, ge=0, description="Train queries read in one pass of the cross-encoder, drawn anew each time; 0 is all."
    )
    pair_requests: int = Field(8, ge=1, description="Queries in one step of the cross-encoder.")
    pair_negatives: int = Field(
        3, ge=1, description="Wrong candidates read beside the right one for each query; fewer take less memory."
    )
    pair_valid_requests: int = Field(
        100, ge=1, description="Validation queries whose candidates are reranked after each pass; it takes its time."
    )
    pair_tokens: int = Field(96, ge=8, le=512, description="Tokens of a query and an item read together.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to train.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="What a jointly trained encoder computes in; auto is bf16 where the processor has it."
    )
    compile: bool = Field(False, description="Compile the networks with torch.compile; says so where it cannot.")
    processes: int = Field(
        1, ge=0, description="Training processes on this machine, started by torchrun; 0 is one for each GPU there is."
    )
    seed: int = Field(0, ge=0, description="Seed of everything random.")

    def smaller(self) -> dict[str, tuple[Any, Any]]:
        """Setting -> (its value, what takes less memory), the most effective first."""
        told: dict[str, tuple[Any, Any]] = {}
        if self.train_encoder and self.peft == "none":
            told["peft"] = ("none", "lora")
        if not self.sampled_items:
            told["sampled_items"] = (0, 2000)
        told["accumulate"] = (self.accumulate, self.accumulate * 4)
        names = ["adapt_batch_size"] if self.adapt_steps else []
        names += ["encoder_items_per_step", "max_tokens"] if self.train_encoder or self.adapt_steps else []
        return told | halved_settings(
            self, *names, "batch_size", "requests_per_step", "negatives", "max_history", "vector_size"
        )
