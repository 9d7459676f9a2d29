"""Which of an encoder's weights are trained, and how fast: adapters, frozen layers, rates that fall with depth.

Adapters are merged into the weights they adapt before anything is saved, so whoever reads the encoder later knows
nothing of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from rankline.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

AdapterKind = Literal["none", "lora", "rslora", "dora", "loha", "ia3", "bitfit"]


def attach(
    backbone: Any,
    *,
    kind: AdapterKind,
    rank: int,
    alpha: int,
    dropout: float = 0.0,
    targets: Sequence[str] = (),
    section: str = "finetune",
) -> Any:
    """The encoder with only ``kind``'s few weights left to train; the very same encoder for `none`.

    lora: Hu et al. 2021; rslora: Kalajdzievski 2023; dora: Liu et al. 2024; loha: Hyeon-Woo et al. 2021;
    ia3: Liu et al. 2022; bitfit (biases alone): Ben Zaken et al. 2022.

    Raises:
        UsageError: the encoder has no layers named as in ``targets``, or none are named and its family is not known.
    """
    if kind == "none":
        return backbone
    if kind == "bitfit":
        for name, weight in backbone.named_parameters():
            weight.requires_grad_(name.endswith("bias"))
        return backbone
    import warnings

    import peft

    target_names = list(targets) or None
    settings: Any
    if kind == "ia3":
        feedforward = [name for name in target_names if "dense" in name or "lin" in name] if target_names else None
        settings = peft.IA3Config(target_modules=target_names, feedforward_modules=feedforward)
    elif kind == "loha":
        settings = peft.LoHaConfig(target_modules=target_names, r=rank, alpha=alpha)
    else:
        settings = peft.LoraConfig(
            target_modules=target_names,
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            use_dora=kind == "dora",
            use_rslora=kind == "rslora",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that transformers will rename
            return peft.get_peft_model(backbone, settings)
    except ValueError as error:  # what peft raises for layers that are not there
        raise UsageError(
            "adapters have no place in this encoder",
            expected=f"{section}.peft_targets among " + ", ".join(_linear_layers(backbone)),
            found=f"{', '.join(targets) or 'none'} ({getattr(backbone.config, 'model_type', 'of an unknown family')})",
            hint=f'set {section}.peft_targets=["query","value"] or whatever its attention calls them',
        ) from error


def merge(backbone: Any) -> Any:
    """The plain encoder that computes what the adapted one does."""
    return backbone.merge_and_unload() if hasattr(backbone, "merge_and_unload") else backbone


def freeze_lowest(backbone: Any, count: int, *, section: str = "finetune") -> None:
    """Keep the embeddings and the lowest ``count`` layers as they are; 0 freezes nothing.

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
            hint=f"set {section}.train_encoder=false to freeze it whole",
        )
    depths = _depths(backbone)
    for name, weight in backbone.named_parameters():
        if depths[name] <= count:
            weight.requires_grad_(False)


def parameter_groups(backbone: Any, *, peak: float, decay: float) -> list[dict[str, Any]]:
    """Optimizer groups of the trained weights: the top layer at ``peak``, each one below at ``decay`` of it.

    Howard & Ruder 2018: what lies deeper is more general and should move less.
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
    """(numbers that are trained, numbers there are)."""
    sizes = [(weight.numel(), weight.requires_grad) for weight in module.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def _layers(backbone: Any) -> Any:
    """The stack of layers: whatever a family calls it, it is the longest list of modules."""
    from torch import nn

    stacks = [module for module in backbone.modules() if isinstance(module, nn.ModuleList)]
    return max(stacks, key=len, default=[])


def _depths(backbone: Any) -> dict[str, int]:
    """Name of every weight -> 0 for the embeddings, 1, 2, … for the layers, and the top's for what is behind them."""
    layers = _layers(backbone)
    inside = {id(weight): depth for depth, layer in enumerate(layers, 1) for weight in layer.parameters()}
    return {
        name: inside.get(id(weight), 0 if "embed" in name else len(layers))
        for name, weight in backbone.named_parameters()
    }


def _linear_layers(backbone: Any) -> list[str]:
    from torch import nn

    return sorted({name.split(".")[-1] for name, module in backbone.named_modules() if isinstance(module, nn.Linear)})
