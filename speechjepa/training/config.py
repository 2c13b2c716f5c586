"""Settings of pretraining and fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from speechjepa.errors import ConfigError
from speechjepa.models.future import FutureConfig
from speechjepa.models.speech_encoder import StreamingConfig

Precision = Literal["auto", "float32", "bfloat16"]
Objective = Literal["jepa", "contrastive", "reconstruct", "future"]
Regularizer = Literal["none", "sigreg", "vicreg"]


# Ranges of settings: what must hold, and whether it does.
_RANGES = {
    "more than 0": lambda x: x > 0,
    "at least 0": lambda x: x >= 0,
    "at least 1": lambda x: x >= 1,
    "at least 0 and at most 1": lambda x: 0 <= x <= 1,
    "at least 0 and below 1": lambda x: 0 <= x < 1,
    "more than 0 and below 1": lambda x: 0 < x < 1,
}


def _require(config: Any, ranges: dict[str, str]) -> None:
    """Raise `ConfigError` where a setting, unless it is None, is out of its range.

    Args:
        config: Settings.
        ranges: Of `_RANGES`, each with the names of the settings that must be within.
    """
    for wanted, names in ranges.items():
        for name in names.split():
            value = getattr(config, name)
            if value is not None and not _RANGES[wanted](value):
                raise ConfigError(f"`{name}` must be {wanted}, but is {value} instead")


@dataclass(frozen=True, kw_only=True)
class _ContextPrediction:
    """Which frames are hidden, and the predictor that has to know them."""

    num_masks: int = 2
    """Masks per utterance, which share one pass of a target encoder."""
    mask_prob: float = 0.5
    """Expected share of hidden frames."""
    mask_length_seconds: float = 0.2
    """Length of a masked span (seconds); 10 frames of 20 ms as in wav2vec 2.0."""
    predictor_width: int = 192
    """Channels inside the predictor."""
    predictor_layers: int = 4
    """Convolution layers of the predictor."""

    def __post_init__(self) -> None:
        _require(
            self,
            {
                "more than 0 and below 1": "mask_prob",
                "more than 0": "mask_length_seconds",
                "at least 1": "num_masks predictor_width predictor_layers",
            },
        )


@dataclass(frozen=True, kw_only=True)
class JepaConfig(_ContextPrediction):
    """Predicting representations."""

    mask_length_seconds: float = 0.08
    """Length of a masked span (seconds); frames of longer ones say less of phones (docs/LOG.md)."""
    regularizer: Regularizer = "none"
    """"none" learns from an EMA target encoder; "sigreg" and "vicreg" need no teacher."""
    average_top_k_layers: int = 4
    """Top blocks whose feed-forward outputs are averaged into targets."""
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
    context_std_weight: float = 1.0
    """Weight of VICReg's variance term on the context encoder's output, with a teacher or without.
    Where this and the next are 0, a short run falls into a few directions, loudness first, and
    frames say less of phones; `surprise` alone does better then (docs/LOG.md)."""
    context_cov_weight: float = 0.04
    """Weight of VICReg's covariance term there."""
    anchor_weight: float = 1.0
    """First weight of the anchor: predictions must also tell the MFCC cluster of a hidden frame;
    0 = a JEPA and nothing else. In short runs the anchor halves the audio needed (docs/LOG.md)."""
    anchor_end_weight: float = 0.1
    """Last weight of the anchor, reached geometrically; not used when `anchor_weight` is 0."""
    anchor_clusters: int = 256
    """k-means clusters of the anchor, fitted to the pool."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(
            self,
            {
                "at least 0 and at most 1": "ema_decay ema_end_decay ema_anneal",
                "at least 0": "sigreg_weight vicreg_std_weight vicreg_cov_weight anchor_weight "
                "context_std_weight context_cov_weight",
                "at least 1": "average_top_k_layers projection_width sigreg_slices anchor_clusters",
                "more than 0": "anchor_end_weight",  # it is approached geometrically
            },
        )


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

    def __post_init__(self) -> None:
        _require(
            self,
            {
                "more than 0 and below 1": "mask_prob",
                "more than 0": "mask_length_seconds latent_temp gumbel_temp gumbel_end_temp "
                "gumbel_anneal",
                "at least 0": "diversity_weight feature_penalty",
                "at least 1": "num_negatives num_codebooks num_codes output_width",
            },
        )
        if 2 * self.output_width % self.num_codebooks:
            raise ConfigError(
                f"`num_codebooks` must divide twice `output_width`, {2 * self.output_width}, "
                f"but is {self.num_codebooks} instead"
            )


@dataclass(frozen=True, kw_only=True)
class ReconstructConfig(_ContextPrediction):
    """Masked log-mel prediction."""


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
    """Smallest perplexity of the codes, averaged over codebooks."""

    def __post_init__(self) -> None:
        _require(
            self,
            {
                "at least 1": "patience",
                "at least 0": "grace_steps min_target_std min_prediction_std min_rankme "
                "min_code_perplexity",
            },
        )


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """One pretraining run."""

    objective: Objective = "jepa"
    """What is predicted: representations, codes among distractors, log-mel frames, or, for
    `speechjepa surprise` alone and with the encoder left as it is, what comes next."""
    jepa: JepaConfig = field(default_factory=JepaConfig)
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    reconstruct: ReconstructConfig = field(default_factory=ReconstructConfig)
    future: FutureConfig = field(default_factory=FutureConfig)
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

    def __post_init__(self) -> None:
        _require(
            self,
            {
                "at least 1": "accumulate monitor_every probe_steps",
                "at least 0": "learning_rate final_learning_rate weight_decay min_seconds "
                "clip_norm num_workers checkpoint_minutes probe_every",
                "more than 0": "batch_seconds max_seconds",
                "at least 0 and at most 1": "warmup",
                "at least 0 and below 1": "dropout drop_path",
            },
        )
        if self.minutes is None and self.max_steps is None:
            raise ConfigError("`minutes` or `max_steps` must be given, but both are null")


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
    head_steps: int | None = None
    """Steps in which the head learns by itself, on frames that are computed once; they come before
    `max_steps` and `minutes`, and take some ten seconds with `tiny`. None = 1000; 0 with fresh
    weights, after a model of the same symbols, and where the head is huge."""
    freeze_finetune_updates: float | None = None
    """Share of the run during which only the head learns. None = 0 after `head_steps`, else some
    hundredths with an encoder that was pretrained."""
    freeze_feature_encoder: bool | None = None
    """Keep the front end as pretrained. None = only one of waveform convolutions, as wav2vec 2.0
    does: kept as pretrained, a log-mel front end made pretraining worse than none (docs/LOG.md)."""
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
    streaming: StreamingConfig | None = None
    """Train with chunks of sampled lengths, so that the model can transcribe live audio; `{}` is
    enough. Takes about a fifth longer, and costs files a little accuracy. None = it cannot."""
    pitch: bool | None = None
    """Let a native encoder that learnt without also hear the pitch of the voice, which log-mel
    frames of a low voice do not show and tones are written by (`PitchInput`). None = where the
    transcripts write tones (see `writes_tones`); elsewhere strangers may be heard worse with it
    (docs/LOG.md). A model that hears it keeps it; an encoder or a front end that stays frozen gets
    none."""
    speed_perturbation: float = 0.1
    """Utterances are resampled by a random factor within 1 +- this; 0 = never."""
    dropout: float = 0.1
    """Encoder dropout; probability."""
    drop_path: float = 0.1
    """Drop-path; probability."""
    inherit_head: bool = True
    """Start the head from that of `init`, where it has one, for the symbols that both have."""
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
    average_decay: float = 0.995
    """Of an exponential moving average of the weights, which is what is read on dev and kept; less
    in the first steps, (1 + step) / (10 + step). 0 = the weights themselves. Polyak and Juditsky,
    https://doi.org/10.1137/0330046."""
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

    @property
    def is_frozen(self) -> bool:
        """Whether the encoder, or its front end, keeps its weights."""
        return self.freeze_encoder or bool(self.freeze_feature_encoder)

    def __post_init__(self) -> None:
        _require(
            self,
            {
                "at least 1": "accumulate upsample mask_channel_length max_dev_utterances "
                "evaluate_every patience",
                "at least 0": "learning_rate weight_decay clip_norm reset_top_layers head_steps",
                "more than 0": "batch_seconds head_learning_rate_factor layer_decay "
                "mask_length_seconds final_learning_rate",
                "at least 0 and at most 1": "freeze_finetune_updates",
                "at least 0 and below 1": "mask_prob mask_channel_prob speed_perturbation dropout "
                "drop_path average_decay",
            },
        )
        if min(self.schedule) < 0 or not sum(self.schedule):
            raise ConfigError(
                "`schedule` must be three shares that are at least 0 and not all 0, "
                f"but is {self.schedule} instead"
            )
