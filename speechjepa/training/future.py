"""Learning what comes next in speech, for `speechjepa surprise`."""

from __future__ import annotations

from torch import Tensor

from speechjepa.data.batches import Batch
from speechjepa.models.encoder import Encoder
from speechjepa.models.future import FutureConfig, FutureModel, gaussian_energy
from speechjepa.objectives.latent import Mean
from speechjepa.shapes import padding_mask
from speechjepa.training.objective import Objective, ObjectiveOutput
from speechjepa.training.processes import over_processes


class FutureObjective(Objective):
    """Predict the density of what comes next from all that came before.

    Args:
        encoder: Kept in the bundle, not trained.
        config: Settings.
    """

    def __init__(self, encoder: Encoder, config: FutureConfig) -> None:
        super().__init__()
        self.config = config
        self.model = FutureModel(encoder.requires_grad_(False), config)

    def forward(self, batch: Batch, progress: float, step: int = 0) -> ObjectiveOutput:
        predictor = self.model.predictor
        frames, lengths = predictor.frames(batch.waveform, batch.lengths)
        means, log_variances, memory = predictor.predict(frames)
        valid = ~padding_mask(lengths, frames.shape[1])
        energies = gaussian_energy(frames, means, log_variances)[valid]
        loss = over_processes(Mean(energies.sum(), energies.new_tensor(float(len(energies)))))
        return ObjectiveOutput(
            loss,
            {"energy": loss.detach()},
            memory[valid].detach(),
            means[valid].detach(),
            frames[valid],
        )

    def fit(self, waveforms: list[Tensor], seed: int) -> None:
        """Whiten the frames."""
        self.model.predictor.fit(waveforms)
