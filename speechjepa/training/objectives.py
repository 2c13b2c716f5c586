"""Where models meet losses: one module per pretraining objective.

Each takes a batch and the share of the run that is done, and returns the loss with its parts, and
what the collapse monitors look at. With several processes every mean is over all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from speechjepa.data.batches import Batch
from speechjepa.models.anchor import Anchor
from speechjepa.models.encoder import Encoder, EncoderOutput
from speechjepa.models.pretraining import (
    ContextPredictionModel,
    ContrastiveModel,
    LogMelTargets,
    PredictorConfig,
    build_predictor,
)
from speechjepa.nn.ema import ema_decay_at, target_copy, update_ema
from speechjepa.nn.masking import span_masks
from speechjepa.nn.quantizer import GumbelQuantizer, gumbel_noise
from speechjepa.objectives.contrastive import (
    contrastive_loss,
    diversity_loss,
    feature_penalty,
    sample_distractors,
)
from speechjepa.objectives.latent import Mean, latent_prediction_loss, layer_targets
from speechjepa.objectives.reconstruction import reconstruction_loss
from speechjepa.objectives.regularizers import sigreg, vicreg
from speechjepa.shapes import padding_mask
from speechjepa.training.config import (
    ContrastiveConfig,
    JepaConfig,
    PretrainConfig,
    ReconstructConfig,
)
from speechjepa.training.future import FutureObjective
from speechjepa.training.objective import Objective, ObjectiveOutput
from speechjepa.training.processes import generators, over_processes, weighted_mean


def draw_masks(
    batch: Batch,
    lengths: Tensor,
    hop: int,
    mask_prob: float,
    seconds: float,
    num_masks: int = 1,
    num_frames: int = 0,
) -> Tensor:
    """Return span masks (num_masks * B, T) bool on the lengths' device; see `span_masks`.

    T is `num_frames`, the padded length, or the longest of `lengths` where that is more.
    """
    masks = span_masks(
        lengths.cpu().numpy(),
        batch.keys.cpu().numpy(),
        mask_prob=mask_prob,
        mask_length=max(1, round(seconds * 16000 / hop)),
        num_masks=num_masks,
    )
    missing = max(0, num_frames - masks.shape[1])
    return functional.pad(torch.from_numpy(masks), (0, missing)).to(lengths.device)


def _predict_hidden(
    model: ContextPredictionModel,
    config: JepaConfig | ReconstructConfig,
    batch: Batch,
    features: Tensor,
    lengths: Tensor,
) -> tuple[Tensor, Tensor, EncoderOutput]:
    """Hide frames of front-end features (B, T, D), `num_masks` times, and predict them.

    Returns:
        Hidden frames (num_masks * B, T) bool, the predictions (num_masks * B, T, D'), and the
        context encoder's output on the others.
    """
    hidden = draw_masks(
        batch,
        lengths,
        model.encoder.hop,
        config.mask_prob,
        config.mask_length_seconds,
        config.num_masks,
        features.shape[1],
    )
    repeated = features.repeat_interleave(config.num_masks, dim=0)
    repeated_lengths = lengths.repeat_interleave(config.num_masks)
    return hidden, *model.predict(repeated, repeated_lengths, hidden)


class JepaObjective(Objective):
    """Predict the representation of what is hidden, from what is seen.

    Args:
        encoder: Context encoder, trained.
        config: Settings.
    """

    def __init__(self, encoder: Encoder, config: JepaConfig) -> None:
        super().__init__()
        self.config: JepaConfig = config
        width = encoder.width
        taught = config.regularizer == "none"
        self.predictor_config = PredictorConfig(
            output_width=width if taught else config.projection_width,
            predictor_width=config.predictor_width,
            predictor_layers=config.predictor_layers,
            projection_width=None if taught else config.projection_width,
            average_top_k_layers=config.average_top_k_layers,
            mask_length_seconds=config.mask_length_seconds,
        )
        self.model = build_predictor(encoder, self.predictor_config)
        self.target_encoder = target_copy(encoder) if taught else None
        self.anchor: Anchor | None = None
        if config.anchor_weight:
            predicted = self.model.predictor.output.out_features
            self.anchor = Anchor(predicted, encoder.hop, config.anchor_clusters)

    def forward(self, batch: Batch, progress: float, step: int = 0) -> ObjectiveOutput:
        encoder, config = self.model.encoder, self.config
        features, lengths = encoder.extract_features(batch.waveform, batch.lengths)
        hidden, predictions, context = _predict_hidden(self.model, config, batch, features, lengths)
        seen = context.features[~padding_mask(context.lengths, context.features.shape[1])]
        parts: dict[str, Tensor] = {}
        if self.target_encoder is not None:
            targets, representation = self._taught_targets(batch), seen
            regularization = predictions.new_zeros(())
        else:
            valid = ~padding_mask(lengths, features.shape[1])
            full = encoder.contextualize(features, lengths).features
            targets = self.model.projection(full)  # type: ignore[misc]
            representation = full[valid]
            regularization, parts = self._regularize(targets[valid], step)
        wanted = targets.repeat_interleave(config.num_masks, dim=0)
        prediction_loss = over_processes(latent_prediction_loss(predictions, wanted, hidden))
        apart, parts_apart = self._keep_apart(seen)
        total = prediction_loss + regularization + apart
        if self.anchor is not None:
            anchor_loss = self._anchor_loss(self.anchor, batch, predictions, hidden)
            total = total + self._anchor_weight(progress) * anchor_loss
            parts["anchor"] = anchor_loss.detach()
        return ObjectiveOutput(
            total,
            {"prediction": prediction_loss.detach(), **parts, **parts_apart},
            representation.detach(),
            predictions[hidden].detach(),
            wanted[hidden].detach(),
        )

    def _keep_apart(self, seen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what holds the channels of visible frames (N, D) apart, and its terms."""
        config = self.config
        if not config.context_std_weight and not config.context_cov_weight:
            return seen.new_zeros(()), {}
        terms = vicreg(seen)
        parts = {
            "context_variance": terms.variance.detach(),
            "context_covariance": terms.covariance.detach(),
        }
        loss = (
            config.context_std_weight * terms.variance
            + config.context_cov_weight * terms.covariance
        )
        return loss, parts

    @torch.no_grad()
    def _taught_targets(self, batch: Batch) -> Tensor:
        assert self.target_encoder is not None
        self.target_encoder.eval()
        features, lengths = self.target_encoder.extract_features(batch.waveform, batch.lengths)
        output = self.target_encoder.contextualize(features, lengths, return_ffn=True)
        assert output.ffn_outputs is not None
        return layer_targets(output.ffn_outputs, lengths, self.config.average_top_k_layers)

    def _anchor_loss(
        self, anchor: Anchor, batch: Batch, predictions: Tensor, hidden: Tensor
    ) -> Tensor:
        clusters = anchor.clusters(batch.waveform, batch.lengths, hidden.shape[1])  # (B, T, R)
        wanted = clusters.repeat_interleave(self.config.num_masks, dim=0)[hidden]  # (M, R)
        logits = anchor(predictions[hidden]).float()  # (M, R, K)
        total = functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum")
        return over_processes(Mean(total, total.new_tensor(float(wanted.numel()))))

    def _anchor_weight(self, progress: float) -> float:
        first, last = self.config.anchor_weight, self.config.anchor_end_weight
        return first * (last / first) ** progress

    def fit(self, waveforms: list[Tensor], seed: int) -> None:
        """Fit the anchor's clusters, if there is an anchor."""
        if self.anchor is not None:
            self.anchor.clusters.fit(waveforms, seed)

    def _regularize(self, embeddings: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        if config.regularizer == "sigreg":
            # Seeded by the step: new directions each time, the same in every process.
            directions = torch.Generator(embeddings.device).manual_seed(step)
            value = sigreg(embeddings, num_slices=config.sigreg_slices, generator=directions)
            return config.sigreg_weight * value, {"sigreg": value.detach()}
        terms = vicreg(embeddings)
        weighted = (
            config.vicreg_std_weight * terms.variance + config.vicreg_cov_weight * terms.covariance
        )
        parts = {"variance": terms.variance.detach(), "covariance": terms.covariance.detach()}
        return weighted, parts

    def after_step(self, progress: float) -> None:
        """Move the target encoder; called once per optimizer step."""
        if self.target_encoder is not None:
            config = self.config
            decay = ema_decay_at(
                progress, config.ema_decay, config.ema_end_decay, config.ema_anneal
            )
            update_ema(self.target_encoder, self.model.encoder, decay)


class ReconstructObjective(Objective):
    """Predict hidden log-mel frames with the same context encoder and predictor as a JEPA.

    Args:
        encoder: Trained.
        config: Settings.
    """

    def __init__(self, encoder: Encoder, config: ReconstructConfig) -> None:
        super().__init__()
        self.config = config
        self.log_mel = LogMelTargets(encoder.hop)
        self.model = ContextPredictionModel(
            encoder,
            self.log_mel.width,
            predictor_width=config.predictor_width,
            predictor_layers=config.predictor_layers,
        )

    def forward(self, batch: Batch, progress: float, step: int = 0) -> ObjectiveOutput:
        features, lengths = self.model.encoder.extract_features(batch.waveform, batch.lengths)
        hidden, predictions, context = _predict_hidden(
            self.model, self.config, batch, features, lengths
        )
        targets = self.log_mel(batch.waveform, batch.lengths, features.shape[1])
        targets = targets.repeat_interleave(self.config.num_masks, dim=0)
        loss = over_processes(reconstruction_loss(predictions, targets, hidden))
        seen = ~padding_mask(context.lengths, context.features.shape[1])
        return ObjectiveOutput(
            loss,
            {"prediction": loss.detach()},
            context.features[seen].detach(),
            predictions[hidden].detach(),
            targets[hidden].detach(),
        )


class ContrastiveObjective(Objective):
    """wav2vec 2.0: tell the code of a hidden frame from the codes of others.

    Args:
        encoder: Trained.
        config: Settings.
    """

    def __init__(self, encoder: Encoder, config: ContrastiveConfig) -> None:
        super().__init__()
        self.config = config
        quantizer = GumbelQuantizer(
            encoder.quantizer_width,
            2 * config.output_width,
            num_codebooks=config.num_codebooks,
            num_codes=config.num_codes,
        )
        self.model = ContrastiveModel(encoder, quantizer, config.output_width)

    def forward(self, batch: Batch, progress: float, step: int = 0) -> ObjectiveOutput:
        encoder, config = self.model.encoder, self.config
        found = encoder.front_end(batch.waveform, batch.lengths)
        features, lengths = found.features, found.lengths
        hidden = draw_masks(
            batch,
            lengths,
            encoder.hop,
            config.mask_prob,
            config.mask_length_seconds,
            num_frames=features.shape[1],
        )
        ratio = config.gumbel_end_temp / config.gumbel_temp
        annealed = min(1.0, progress / config.gumbel_anneal)
        temperature = config.gumbel_temp * ratio**annealed
        noise, distractors = self._draw(batch.keys, hidden.sum(dim=1))
        predictions, targets, num_masked, quantized, output = self.model(
            found, hidden, temperature, noise
        )
        contrast = contrastive_loss(
            predictions,
            targets,
            num_masked,
            latent_temp=config.latent_temp,
            codes=quantized.codes,
            distractors=distractors,
        )
        contrastive = over_processes(Mean(contrast.loss_sum, contrast.count.float()))
        diversity = diversity_loss(weighted_mean(quantized.probabilities, quantized.count))
        total = contrastive + config.diversity_weight * diversity
        parts = {"contrastive": contrastive.detach(), "diversity": diversity.detach()}
        if found.convolved is not None:
            number = lengths.sum().float()
            squares = feature_penalty(found.convolved, lengths) * number
            penalty = over_processes(Mean(squares, number))
            total = total + config.feature_penalty * penalty
            parts["feature_penalty"] = penalty.detach()
        valid = ~padding_mask(lengths, features.shape[1])
        masked = ~padding_mask(num_masked, predictions.shape[1])
        return ObjectiveOutput(
            total,
            parts,
            output.features[valid].detach(),
            predictions[masked].detach(),
            targets[masked].detach(),
            {
                "code_perplexity": quantized.perplexity.detach(),
                "contrastive_accuracy": contrast.accuracy.detach(),
            },
        )

    def _draw(self, keys: Tensor, num_masked: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return Gumbel noise (B, M, G, V), None in evaluation, and distractors (B, M, K)."""
        quantizer: GumbelQuantizer = self.model.quantizer
        counts = num_masked.tolist()  # at once: each reading waits for the device
        shape = (len(keys), max(counts))
        codes = (quantizer.num_codebooks, quantizer.num_codes)
        distractors = num_masked.new_zeros(*shape, self.config.num_negatives)
        noise = torch.zeros(*shape, *codes, device=keys.device) if self.training else None
        sources = generators(keys, keys.device)
        for row, (count, source) in enumerate(zip(counts, sources, strict=True)):
            distractors[row, :count] = sample_distractors(
                num_masked[row : row + 1], count, self.config.num_negatives, generator=source
            )[0]
            if noise is not None:
                noise[row, :count] = gumbel_noise((count, *codes), keys.device, source)
        return noise, distractors


def build_objective(encoder: Encoder, config: PretrainConfig) -> Objective:
    """Return the objective that the settings name, around an encoder."""
    if config.objective == "jepa":
        return JepaObjective(encoder, config.jepa)
    if config.objective == "contrastive":
        return ContrastiveObjective(encoder, config.contrastive)
    if config.objective == "future":
        return FutureObjective(encoder, config.future)
    return ReconstructObjective(encoder, config.reconstruct)
