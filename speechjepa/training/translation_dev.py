"""What a translator writes while it is trained, and how far from the truth that is."""

from __future__ import annotations

import torch

from speechjepa.data.batches import Batch, BatchPlan, collate
from speechjepa.metrics.translation import sequence_error_rate
from speechjepa.models.encoder import Encoder, EncoderOutput
from speechjepa.models.speech_encoder import SpeechEncoder
from speechjepa.models.speech_to_units import SpeechTranslationModel, UnitDecoder, collapse
from speechjepa.models.unit_search import greedy_tokens
from speechjepa.nn.transformer import Chunks
from speechjepa.training.translation_items import TranslationItems


@torch.no_grad()
def token_error_rate(
    model: SpeechTranslationModel, data: TranslationItems, most: int, chunks: Chunks | None = None
) -> float:
    """Return the edits per token of the best path on at most `most` pairs, evenly spaced, perhaps
    heard in chunks."""
    device = next(model.parameters()).device
    used = list(range(0, len(data.items), max(1, -(-len(data.items) // most))))
    found: list[list[int]] = [[] for _ in used]
    for rows in BatchPlan(data.items.lengths[used], 60.0).epoch(0):
        batch = collate([data.items[(used[r], 0)] for r in rows]).to(device)
        written = best_tokens(model, encode(model.encoder, batch, chunks), chunks)
        for row, place in enumerate(rows):
            found[place] = written[row]
    return sequence_error_rate([data.token_ids[i].tolist() for i in used], found)


def encode(encoder: Encoder, batch: Batch, chunks: Chunks | None) -> EncoderOutput:
    """Encode a batch, at once or as streams would."""
    if chunks is None:
        return encoder(batch.waveform, batch.lengths)
    assert isinstance(encoder, SpeechEncoder)
    return encoder.encode_in_chunks(batch.waveform, batch.lengths, chunks)


def best_tokens(
    model: SpeechTranslationModel, output: EncoderOutput, chunks: Chunks | None = None
) -> list[list[int]]:
    """Return the tokens of the best path, or of greedy decoding, of a batch."""
    translator = model.translator
    if isinstance(translator, UnitDecoder):
        memory = translator.remember(output.features, output.lengths)
        return greedy_tokens(translator, memory, most=int(output.lengths.max()) * 2)
    logits, lengths, _, _ = translator(output.features, output.lengths, chunks)
    best = logits.argmax(dim=-1).cpu()
    return [collapse(best[row, : int(n)].tolist()) for row, n in enumerate(lengths)]
