"""Fine-tuning settings chosen from the minutes of labels that are there."""

from __future__ import annotations

from dataclasses import dataclass, replace

from speechjepa.training.config import FinetuneConfig


@dataclass(frozen=True)
class Preset:
    """What depends on how much is labelled."""

    up_to_minutes: float
    max_steps: int
    learning_rate: float
    layer_decay: float
    freeze_finetune_updates: float
    mask_prob: float
    mask_channel_prob: float


# Fewer labels: fewer steps, more masking, lower layers kept closer to what pretraining found.
# The shares of wav2vec 2.0's 10-minute recipe (https://arxiv.org/abs/2006.11477, appendix B),
# scaled to small encoders; the figures behind them are in docs/LOG.md.
PRESETS = (
    Preset(5.0, 1500, 1e-3, 0.9, 0.05, 0.25, 0.15),
    Preset(30.0, 3000, 1e-3, 0.9, 0.05, 0.25, 0.15),
    Preset(180.0, 6000, 1e-3, 0.9, 0.03, 0.2, 0.1),
    Preset(float("inf"), 12000, 1e-3, 0.95, 0.02, 0.15, 0.1),
)

HEAD_STEPS = 1000


def preset_upsample(frame_rate: float) -> int:
    """Return how many symbols a head may write per frame, at so many frames per second."""
    return 2 if frame_rate < 40 else 1


def resolve_presets(
    config: FinetuneConfig,
    label_minutes: float,
    *,
    pretrained: bool,
    frame_rate: float,
    waveform_front_end: bool,
    head_is_new: bool = True,
    fine_tuned: bool = False,
) -> FinetuneConfig:
    """Fill in every setting that is None.

    Args:
        config: What the recipe says.
        label_minutes: Minutes of labelled speech.
        pretrained: Whether the encoder starts from a bundle; from scratch nothing is frozen and
            every layer learns alike.
        frame_rate: Encoder frames per second.
        waveform_front_end: Whether the front end is made of waveform convolutions.
        head_is_new: Whether a head of its size is worth training by itself.
        fine_tuned: Whether the layers of the start were fine-tuned before, on phones say.
    """
    preset = next(p for p in PRESETS if label_minutes <= p.up_to_minutes)
    ready = pretrained and head_is_new and not config.reset_top_layers
    head_steps = HEAD_STEPS if ready else 0
    if config.head_steps is not None:
        head_steps = config.head_steps
    chosen = {
        "max_steps": None if config.minutes is not None else preset.max_steps,
        "learning_rate": preset.learning_rate if pretrained else 1e-3,
        # What was fine-tuned before has nothing in its lower layers to be kept from change.
        "layer_decay": preset.layer_decay if pretrained and not fine_tuned else 1.0,
        # A head that learned by itself gives gradients that mean something at once.
        "freeze_finetune_updates": (
            preset.freeze_finetune_updates if pretrained and not head_steps else 0.0
        ),
        "mask_prob": preset.mask_prob,
        "mask_channel_prob": preset.mask_channel_prob,
        "upsample": preset_upsample(frame_rate),
        "head_steps": head_steps,
        "freeze_feature_encoder": waveform_front_end,
    }
    missing = {k: v for k, v in chosen.items() if getattr(config, k) is None}
    config = replace(config, **missing)  # type: ignore[arg-type]
    if not pretrained:
        config = replace(config, freeze_feature_encoder=False)
    if config.evaluate_every is None:
        steps = config.max_steps or preset.max_steps
        config = replace(config, evaluate_every=max(20, steps // 15))
    return config
