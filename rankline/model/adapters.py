"""Which weights of an encoder are trained, and how fast: adapters, frozen layers, learning rates by depth.

Adapters are merged into the encoder's weights before it is saved, so a saved encoder is a plain one.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal, Protocol

from rankline.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

AdapterKind = Literal["none", "lora", "rslora", "dora", "loha", "ia3", "bitfit"]


class AdapterSettings(Protocol):
    """The settings of a trained encoder, as finetune and distill have them."""

    @property
    def peft(self) -> AdapterKind: ...
    @property
    def peft_rank(self) -> int: ...
    @property
    def peft_alpha(self) -> int: ...
    @property
    def peft_dropout(self) -> float: ...
    @property
    def peft_targets(self) -> list[str]: ...
    @property
    def encoder_frozen_layers(self) -> int: ...


def prepare(backbone: Any, settings: AdapterSettings, *, section: str) -> Any:
    """The encoder with frozen layers and adapters as the settings ask; ``section`` names them in errors.

    Raises:
        UsageError: the encoder has no layers for the adapters, or fewer layers than are to be frozen.
    """
    freeze_lowest(backbone, settings.encoder_frozen_layers, section=section)
    return attach(backbone, settings, section=section)


def attach(backbone: Any, settings: AdapterSettings, *, section: str = "finetune") -> Any:
    """The encoder with only the weights of the adapters left to train; the same encoder for `none`.

    lora: Hu et al. 2021; rslora: Kalajdzievski 2023; dora: Liu et al. 2024; loha: Hyeon-Woo et al. 2021;
    ia3: Liu et al. 2022; bitfit (biases alone): Ben Zaken et al. 2022.

    Raises:
        UsageError: the encoder has no layers named in ``peft_targets``, or none are named and its family is unknown.
    """
    if settings.peft == "none":
        return backbone
    if settings.peft == "bitfit":
        for name, weight in backbone.named_parameters():
            weight.requires_grad_(name.endswith("bias"))
        return backbone
    import peft

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about names that transformers will rename
            return peft.get_peft_model(backbone, _peft_config(settings))
    except ValueError as error:  # what peft raises for missing layers
        family = getattr(backbone.config, "model_type", "of an unknown family")
        raise UsageError(
            "the encoder has no layers for these adapters",
            expected=f"{section}.peft_targets among " + ", ".join(_linear_layers(backbone)),
            found=f"{', '.join(settings.peft_targets) or 'none'} ({family})",
            hint=f'set {section}.peft_targets=["query","value"], or the names that its attention uses',
        ) from error


def _peft_config(settings: AdapterSettings) -> Any:
    import peft

    kind, targets = settings.peft, list(settings.peft_targets) or None
    if kind == "ia3":
        feedforward = [name for name in targets if "dense" in name or "lin" in name] if targets else None
        return peft.IA3Config(target_modules=targets, feedforward_modules=feedforward)
    if kind == "loha":
        return peft.LoHaConfig(target_modules=targets, r=settings.peft_rank, alpha=settings.peft_alpha)
    return peft.LoraConfig(
        target_modules=targets,
        r=settings.peft_rank,
        lora_alpha=settings.peft_alpha,
        lora_dropout=settings.peft_dropout,
        use_dora=kind == "dora",
        use_rslora=kind == "rslora",
    )


def merge(backbone: Any) -> Any:
    """The plain encoder with the adapters merged into its weights."""
    return backbone.merge_and_unload() if hasattr(backbone, "merge_and_unload") else backbone


def freeze_lowest(backbone: Any, count: int, *, section: str = "finetune") -> None:
    """Freeze the embeddings and the lowest ``count`` layers; 0 freezes nothing.

    Raises:
        UsageError: the encoder has fewer layers.
    """
    if not count:
        return
    layers = _layers(backbone)
    if count > len(layers):
        raise UsageError(
            "the encoder has fewer layers than are to be frozen",
            expected=f"{section}.encoder_frozen_layers of at most {len(layers)}",
            found=str(count),
            hint=f"set {section}.train_encoder=false to freeze the whole encoder",
        )
    depths = _depths(backbone)
    for name, weight in backbone.named_parameters():
        if depths[name] <= count:
            weight.requires_grad_(False)


def parameter_groups(backbone: Any, *, peak: float, decay: float) -> list[dict[str, Any]]:
    """Optimizer groups of the trained weights: the top layer at ``peak``, each lower one at ``decay`` of the next.

    Lower layers are more general and should change less (Howard & Ruder 2018).
    """
    trained = {name: weight for name, weight in backbone.named_parameters() if weight.requires_grad}
    if decay == 1.0:
        return [{"params": list(trained.values()), "peak": peak}]
    depths = _depths(backbone)
    groups: dict[int, list[Any]] = {}
    top = max(depths.values())
    for name, weight in trained.items():
        groups.setdefault(depths[name], []).append(weight)
    return [{"params": weights, "peak": peak * decay ** (top - depth)} for depth, weights in sorted(groups.items())]


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """(number of trained weights, number of weights)."""
    sizes = [(weight.numel(), weight.requires_grad) for weight in module.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def _layers(backbone: Any) -> Any:
    """The stack of layers: in every model family the longest list of modules."""
    from torch import nn

    stacks = [module for module in backbone.modules() if isinstance(module, nn.ModuleList)]
    return max(stacks, key=len, default=[])


def _depths(backbone: Any) -> dict[str, int]:
    """Name of every weight -> 0 for the embeddings, 1, 2, … for the layers; later weights belong to the top one."""
    layers = _layers(backbone)
    inside = {id(weight): depth for depth, layer in enumerate(layers, 1) for weight in layer.parameters()}
    return {
        name: inside.get(id(weight), 0 if "embed" in name else len(layers))
        for name, weight in backbone.named_parameters()
    }


def _linear_layers(backbone: Any) -> list[str]:
    from torch import nn

    return sorted({name.split(".")[-1] for name, module in backbone.named_modules() if isinstance(module, nn.Linear)})
