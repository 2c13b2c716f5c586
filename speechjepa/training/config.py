"""Settings of pretraining and fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Precision = Literal["auto", "float32", "bfloat16"]
Objective = Literal["jepa", "contrastive", "reconstruct"]
Regularizer = Literal["none", "sigreg", "vicreg"]


@dataclass(frozen=True, kw_only=True)
class JepaConfig:
    """Predicting representations."""

    regularizer: Regularizer = "none"
    """"none" learns from an EMA target encoder; "sigreg" and "vicreg" need no teacher."""
    average_top_k_layers: int = 4
    """Top blocks whose feed-forward outputs are averaged into targets."""
    num_masks: int = 2
    """Masks per utterance that share one pass of the target encoder."""
    mask_prob: float = 0.5
    """Expected share of hidden frames."""
    mask_length_seconds: float = 0.2
    """Length of a masked span (seconds); 10 frames of 20 ms as in wav2vec 2.0."""
    predictor_width: int = 192
    """Channels inside the predictor."""
    predictor_layers: int = 4
    """Convolution layers of the predictor."""
    ema_decay: float = 0.99
    """First decay of the target encoder, per optimizer step."""
    ema_end_decay: float = 0.999
    """Last decay. Short runs need a faster teacher: time constant about 2-5 % of the steps."""
    ema_anneal: float = 0.5
    """Share of the run at which the last decay is reached."""
    projection_width: int = 128
    """Channels of the targets when there is no teacher."""
    sigreg_weight: float = 10.0
    """Weight of SIGReg, which is not multiplied by the number of frames (see `sigreg`)."""
    sigreg_slices: int = 256
    """Random directions of SIGReg, redrawn each step."""
    vicreg_std_weight: float = 1.0
    """Weight of VICReg's variance term."""
    vicreg_cov_weight: float = 0.1
    """Weight of VICReg's covariance term."""
    anchor_weight: float = 1.0
    """First weight of the anchor: predictions must also tell the MFCC cluster of a hidden frame;
    0 = a JEPA and nothing else. In short runs the anchor halves the audio needed (docs/LOG.md)."""
    anchor_end_weight: float = 0.1
    """Last weight of the anchor, reached geometrically; not used when `anchor_weight` is 0."""
    anchor_clusters: int = 256
    """k-means clusters of the anchor, fitted to the pool."""


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """wav2vec 2.0's objective, https://arxiv.org/abs/2006.11477."""

    mask_prob: float = 0.49
    """Expected share of hidden frames (the paper's .065 span starts of 10 frames hide 49 %)."""
    mask_length_seconds: float = 0.2
    """Length of a masked span (seconds)."""
    num_negatives: int = 100
    """Distractors from the other masked frames of the utterance."""
    latent_temp: float = 0.1
    """Temperature of the cosine similarities."""
    num_codebooks: int = 2
    """G."""
    num_codes: int = 320
    """V, entries per codebook."""
    output_width: int = 128
    """Channels in which predictions and targets are compared."""
    gumbel_temp: float = 2.0
    """First temperature of the Gumbel softmax."""
    gumbel_end_temp: float = 0.5
    """Last temperature."""
    gumbel_anneal: float = 0.7
    """Share of the run at which the last temperature is reached (geometric)."""
    diversity_weight: float = 0.1
    """Weight of the codebook diversity loss."""
    feature_penalty: float = 10.0
    """Weight of the mean square of waveform convolutions; not used on log-mel front ends."""


@dataclass(frozen=True, kw_only=True)
class ReconstructConfig:
    """Masked log-mel prediction."""

    mask_prob: float = 0.5
    """Expected share of hidden frames."""
    mask_length_seconds: float = 0.2
    """Length of a masked span (seconds)."""
    num_masks: int = 2
    """Masks per utterance."""
    predictor_width: int = 192
    """Channels inside the predictor."""
    predictor_layers: int = 4
    """Convolution layers of the predictor."""


@dataclass(frozen=True, kw_only=True)
class CollapseConfig:
    """When to call a run collapsed (thresholds of data2vec, https://arxiv.org/abs/2202.03555)."""

    grace_steps: int = 200
    """Steps before anything is judged."""
    patience: int = 3
    """Monitor readings in a row that must be bad."""
    min_target_std: float = 0.1
    """Smallest standard deviation over frames of the targets."""
    min_prediction_std: float = 0.01
    """Smallest standard deviation over frames of the predictions."""
    min_rankme: float = 3.0
    """Smallest effective rank of the representation."""
    min_code_perplexity: float = 4.0
    """Smallest perplexity of the codes, summed over codebooks."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """One pretraining run."""

    objective: Objective = "jepa"
    """What is predicted: representations, codes among distractors, or log-mel frames."""
    jepa: JepaConfig = field(default_factory=JepaConfig)
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    reconstruct: ReconstructConfig = field(default_factory=ReconstructConfig)
    collapse: CollapseConfig = field(default_factory=CollapseConfig)
    minutes: float | None = 30.0
    """Wall-clock budget (minutes); schedules follow whichever of the two ends first."""
    max_steps: int | None = None
    """Budget in optimizer steps."""
    batch_seconds: float = 60.0
    """Padded audio per batch and process (seconds)."""
    accumulate: int = 1
    """Batches per optimizer step."""
    max_seconds: float = 15.6
    """Longer utterances are cut into equal pieces of at most this (seconds)."""
    min_seconds: float = 0.4
    """Shorter utterances are left out (seconds)."""
    learning_rate: float = 1e-3
    """Peak."""
    warmup: float = 0.05
    """Share of the run over which the learning rate rises; then it falls as a cosine."""
    final_learning_rate: float = 0.02
    """Learning rate at the end, as a share of the peak."""
    weight_decay: float = 0.05
    """Of matrices; vectors are not decayed."""
    clip_norm: float = 3.0
    """Gradient norm above which gradients are scaled down."""
    dropout: float = 0.0
    """Encoder dropout while pretraining; probability."""
    drop_path: float = 0.0
    """Drop-path while pretraining; probability."""
    precision: Precision = "auto"
    """"auto" measures one step each way and takes the faster."""
    devices: int = 1
    """Processes or GPUs, as Lightning's `devices`."""
    strategy: str = "auto"
    """As Lightning's `strategy`."""
    accelerator: str = "auto"
    """As Lightning's `accelerator`."""
    num_workers: int = 0
    """Loader processes; 0 is enough, the cache needs no decoding."""
    monitor_every: int = 50
    """Steps between readings of the collapse monitors."""
    checkpoint_minutes: float = 3.0
    """Minutes between checkpoints."""
    probe_every: int = 1000
    """Steps between probes (a small CTC head on the frozen encoder); 0 = never."""
    probe_steps: int = 150
    """Training steps of a probe."""
    seed: int = 0
    """Of everything random."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """One fine-tuning run; None = chosen from the minutes of labels (see `resolve_presets`)."""

    max_steps: int | None = None
    """Optimizer steps."""
    minutes: float | None = None
    """Wall-clock limit (minutes); schedules follow whichever ends first."""
    batch_seconds: float = 40.0
    """Padded audio per batch (seconds)."""
    accumulate: int = 1
    """Batches per optimizer step."""
    learning_rate: float | None = None
    """Peak of the encoder's top block."""
    head_learning_rate_factor: float = 8.0
    """The head learns this many times faster than the encoder."""
    layer_decay: float | None = None
    """Learning-rate factor from each block to the one below it."""
    freeze_finetune_updates: float | None = None
    """Share of the run during which only the head learns."""
    freeze_feature_encoder: bool = True
    """Keep the front end as pretrained (never when starting from scratch)."""
    freeze_encoder: bool = False
    """Train the head alone: a linear probe."""
    reset_top_layers: int = 0
    """Blocks at the top that start from fresh weights."""
    mask_prob: float | None = None
    """Expected share of frames hidden by time masks."""
    mask_length_seconds: float = 0.2
    """Length of a time mask (seconds)."""
    mask_channel_prob: float | None = None
    """Expected share of feature channels hidden."""
    mask_channel_length: int = 16
    """Channels per channel mask."""
    speed_perturbation: float = 0.1
    """Utterances are resampled by a random factor within 1 +- this; 0 = never."""
    dropout: float = 0.1
    """Encoder dropout; probability."""
    drop_path: float = 0.1
    """Drop-path; probability."""
    upsample: int | None = None
    """Logit frames per encoder frame; None = 2 for 25 Hz encoders, else 1."""
    schedule: tuple[float, float, float] = (0.1, 0.4, 0.5)
    """Tri-stage learning rate: shares of the run spent rising, holding and falling."""
    final_learning_rate: float = 0.05
    """Learning rate at the end, as a share of the peak."""
    weight_decay: float = 0.01
    """Of matrices."""
    clip_norm: float = 5.0
    """Gradient norm above which gradients are scaled down."""
    precision: Precision = "auto"
    """See `PretrainConfig`."""
    accelerator: str = "auto"
    """As Lightning's `accelerator`."""
    evaluate_every: int | None = None
    """Steps between readings of the dev error."""
    patience: int | None = None
    """Dev readings without a better CER after which it stops; None = run to the end."""
    max_dev_utterances: int = 300
    """Dev utterances used while training (evenly spaced); the final evaluation uses all."""
    seed: int = 0
    """Of everything random."""
