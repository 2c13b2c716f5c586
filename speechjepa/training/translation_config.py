"""Settings of training a translator."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from speechjepa.errors import ConfigError
from speechjepa.models.speech_to_units import TranslatorConfig
from speechjepa.training.config import FinetuneConfig


@dataclass(frozen=True, kw_only=True)
class TranslateConfig(FinetuneConfig):
    """One training of a translator: as fine-tuning, with another head."""

    translator: TranslatorConfig = field(default_factory=TranslatorConfig)
    """Sizes of the head."""
    head_learning_rate_factor: float = 2.0
    """The translator learns this many times faster than the encoder."""
    average_decay: float = 0.0
    """As in fine-tuning; what it is worth to a translator was not measured."""
    pitch: bool | None = False
    """As in fine-tuning, but that nothing is given unasked: what it is worth to a translator was
    not measured."""
    source_text_weight: float = 0.3
    """Weight of CTC on the source's transcripts, where there are any; 0 = textless."""
    target_text_weight: float = 0.3
    """Weight of CTC on the target's text, where there is any; 0 = textless."""
    label_smoothing: float = 0.1
    """Of an autoregressive decoder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("source_text_weight", "target_text_weight", "label_smoothing"):
            value = getattr(self, name)
            if not 0.0 <= value < (1.0 if name == "label_smoothing" else float("inf")):
                raise ConfigError(f"`{name}` must be at least 0, but is {value} instead")
        for name, elsewhere in (
            ("upsample", "translator.upsample"),
            ("inherit_head", "init"),
            ("head_steps", "freeze_finetune_updates"),
        ):
            if getattr(self, name) != FinetuneConfig.__dataclass_fields__[name].default:
                raise ConfigError(f"`{name}` has no meaning for a translator; see `{elsewhere}`")


@dataclass(frozen=True)
class Preset:
    """What depends on how much parallel speech there is."""

    up_to_minutes: float
    max_steps: int
    mask_prob: float
    mask_channel_prob: float


PRESETS = (
    Preset(30.0, 3000, 0.25, 0.15),
    Preset(180.0, 8000, 0.15, 0.1),
    Preset(float("inf"), 20000, 0.1, 0.05),
)


def resolve_translation_presets(
    config: TranslateConfig, minutes: float, *, pretrained: bool, waveform: bool
) -> TranslateConfig:
    """Fill in every setting that is None but `upsample`, which is the translator's.

    Args:
        config: What the recipe says.
        minutes: Of parallel speech.
        pretrained: Whether the encoder starts from a bundle.
        waveform: Whether its front end is made of waveform convolutions.
    """
    preset = next(p for p in PRESETS if minutes <= p.up_to_minutes)
    steps = config.max_steps or preset.max_steps
    chosen = {
        "max_steps": None if config.minutes is not None else preset.max_steps,
        "mask_prob": preset.mask_prob,
        "mask_channel_prob": preset.mask_channel_prob,
        "learning_rate": 5e-4,
        "layer_decay": 0.95 if pretrained else 1.0,
        # The translator starts from nothing: until it means something, its gradient only harms.
        "freeze_finetune_updates": 0.05 if pretrained else 0.0,
        "freeze_feature_encoder": pretrained and waveform,
        "evaluate_every": max(20, steps // 15),
    }
    missing = {k: v for k, v in chosen.items() if getattr(config, k) is None}
    return replace(config, **missing)  # type: ignore[arg-type]
