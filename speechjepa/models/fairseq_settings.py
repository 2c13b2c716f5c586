"""What a checkpoint of fairseq says of its model besides the weights."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from speechjepa.errors import ModelError
from speechjepa.models.checkpoint_files import StandIn

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
"""The first four symbols of every dictionary, by what CTC makes of them: the first is the blank.
fairseq calls it <s> and the second <pad>; `transformers` swapped the names of the two."""
_NUMBERS = {
    "encoder_attention_heads": "num_heads",
    "max_distance": "bias_distance",
}
_FLAGS = {"layer_norm_first": "pre_norm", "normalize": "normalize"}
_DROPOUTS = {
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "dropout_input": "input_dropout",
    "encoder_layerdrop": "layerdrop",
}


def read_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that shapes of tensors do not tell.

    They are under `cfg` or `args`, those of the pretrained model that a CTC model was made from
    under its `w2v_args`; WavLM has them in `cfg` itself. The pretrained model's count most.

    Returns:
        Any of num_heads, bias_distance, pre_norm, normalize, strides, and dropouts by our names.
    """
    found: dict[str, Any] = {"dropouts": {}}
    for level in _levels(content):
        for theirs, ours in _NUMBERS.items():
            if _is_number(level.get(theirs), int) and level[theirs] > 0:
                found[ours] = level[theirs]
        for theirs, ours in _FLAGS.items():
            if isinstance(level.get(theirs), bool):
                found[ours] = level[theirs]
        for theirs, ours in _DROPOUTS.items():
            if _is_number(level.get(theirs), int | float) and 0 <= level[theirs] < 1:
                found["dropouts"][ours] = float(level[theirs])
        layers = level.get("conv_feature_layers")
        if isinstance(layers, str):
            found["strides"] = tuple(layer[2] for layer in convolution_layers(layers))
    return found


def convolution_layers(text: str) -> list[tuple[int, int, int]]:
    """Return (channels, kernel, stride) of every layer of "[(512, 10, 5)] + [(512, 3, 2)] * 4".

    fairseq evaluates this as Python; here lists of numbers, their sums and multiples are read.

    Raises:
        ModelError: It is anything else.
    """
    try:
        layers = _value(ast.parse(text.strip(), mode="eval").body)
        if isinstance(layers, list) and all(
            isinstance(layer, tuple) and len(layer) == 3 for layer in layers
        ):
            return layers
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    raise ModelError(f"`conv_feature_layers` cannot be read: {text[:80]!r}")


def read_symbols(path: Path) -> dict[str, int]:
    """Return {symbol: index} of a dictionary of fairseq: a symbol and its count on every line.

    Raises:
        ModelError: A line is not that, or a symbol comes twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    symbols = list(SPECIAL)
    for number, line in enumerate(lines, start=1):
        symbol, _, count = line.rstrip().removesuffix(" #fairseq:overwrite").rpartition(" ")
        if not symbol or not count.isdigit():
            raise ModelError(
                f"{path}:{number}: must be a symbol and its count, but is {line[:40]!r} instead"
            )
        if symbol in symbols:
            raise ModelError(f"{path}:{number}: {symbol!r} comes twice")
        symbols.append(symbol)
    return {symbol: index for index, symbol in enumerate(symbols)}


def embedded_symbols(content: Mapping[str, Any]) -> dict[str, int] | None:
    """Return {symbol: index} of the dictionary inside a checkpoint; None when there is none."""
    task = content.get("task_state")
    dictionary = _plain(task.get("target_dictionary")) if isinstance(task, dict) else None
    symbols = dictionary.get("symbols") if isinstance(dictionary, dict) else None
    if not isinstance(symbols, list) or not all(isinstance(s, str) for s in symbols):
        return None
    if symbols[:4] == ["<s>", "<pad>", "</s>", "<unk>"]:
        symbols = [*SPECIAL, *symbols[4:]]
    return {symbol: index for index, symbol in enumerate(symbols)}


def _levels(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every place that settings can be in, those that count most last."""
    places: list[Any] = [_plain(_plain(content.get(name))) for name in ("args", "cfg")]
    for place in places:  # which grows
        if isinstance(place, dict) and len(places) < 20:
            level = {str(name): _plain(_plain(value)) for name, value in place.items()}
            yield level
            places += [level[name] for name in ("task", "model", "w2v_args") if name in level]


def _plain(value: Any) -> Any:
    """Return a setting without its wrapping: a namespace, or a node of omegaconf."""
    if isinstance(value, StandIn):
        inner = value.values
        return inner.get("_content", inner.get("_val", inner))
    return value


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and type(node.value) is int and 0 < node.value < 100_000:
        return node.value
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Add) and isinstance(left, list) and isinstance(right, list):
            return left + right
        is_multiple = isinstance(node.op, ast.Mult) and isinstance(left, list)
        if is_multiple and isinstance(right, int) and len(left) * right <= 100:
            return left * right
    raise ValueError("not a list of layers")
