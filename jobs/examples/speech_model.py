"""A small wav2vec 2.0 to begin from nothing: ``python -m prunus.jobs.examples.speech_model DIR [--layers 4 ...]``.

Writes ``config.json`` and ``preprocessor_config.json`` and no weights: ``model: {from: DIR, init: random}``. As it
stands (hidden 128, 4 layers, 64 channels) it has 0.9M weights beside the quantiser and learns on two CPU cores.

Like the large models of the paper (arXiv 2006.11477) it has LayerNorm after each convolution and ahead of each block:
what it says of a clip does not depend on the padding behind it. Kernels and strides are the usual ones: a frame is 20
ms. Differs: positions are told over 64 frames instead of 128.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor

SAMPLING_RATE = 16_000
_CONVOLUTIONS = 7
_GROUPS_OF_POSITIONS = 16
"""Of the convolution that tells positions apart; the hidden size is a multiple of it."""


def small_config(
    hidden: int = 128,
    layers: int = 4,
    heads: int = 4,
    channels: Sequence[int] = (64,),
    codes: int = 64,
    dropout: float = 0.1,
) -> Wav2Vec2Config:
    """Return the configuration.

    Args:
        hidden: Size of a frame in the encoder, a multiple of 16 and of ``heads``. Paper: 768 (base), 1024 (large).
        layers: Transformer blocks. Paper: 12, 24.
        heads: Attention heads of a block. Paper: 12, 16.
        channels: Of each of the feature encoder's seven convolutions, or one number for all. Paper: 512. Three
            quarters of all frames are those of the first two.
        codes: Entries of each of the quantiser's two codebooks. Paper: 320.
        dropout: In the blocks, in [0, 1). Paper: 0.1 (base), 0 (large).

    Raises:
        ValueError: ``hidden`` cannot be split, or another number of channels was given.
    """
    if len(channels) not in {1, _CONVOLUTIONS}:
        raise ValueError(f"channels has {len(channels)} numbers; give one, or one for each of {_CONVOLUTIONS}")
    if hidden % _GROUPS_OF_POSITIONS or hidden % heads:
        raise ValueError(f"hidden {hidden} is not a multiple of {_GROUPS_OF_POSITIONS} and of heads {heads}")
    return Wav2Vec2Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        hidden_dropout=dropout,
        attention_dropout=dropout,
        activation_dropout=0.0,
        layerdrop=0.0,
        conv_dim=tuple(channels) * (_CONVOLUTIONS // len(channels)),
        conv_bias=True,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=64,
        num_conv_pos_embedding_groups=_GROUPS_OF_POSITIONS,
        num_codevector_groups=2,
        num_codevectors_per_group=codes,
        codevector_dim=hidden,
        proj_codevector_dim=hidden,
        mask_time_prob=0.65,
        mask_time_length=10,
    )


def write(folder: Path, config: Wav2Vec2Config) -> None:
    """Write the directory; clips are scaled to mean 0 and variance 1."""
    config.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(
        sampling_rate=SAMPLING_RATE, padding_value=0.0, do_normalize=True, return_attention_mask=True
    ).save_pretrained(folder)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def main(arguments: list[str]) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser("python -m prunus.jobs.examples.speech_model", description="a small wav2vec 2.0")
    parser.add_argument("folder", type=Path, metavar="DIR")
    for name, value in (("hidden", 128), ("layers", 4), ("heads", 4), ("codes", 64)):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    parser.add_argument(
        "--channels", type=_numbers, default=(64,), metavar="N[,N...]", help="one number, or seven; default 64"
    )
    parser.add_argument("--dropout", type=float, default=0.1, help="default 0.1")
    given = vars(parser.parse_args(arguments))
    folder = given.pop("folder")
    try:
        config = small_config(**given)
    except ValueError as error:
        parser.error(str(error))
    write(folder, config)
    sys.stdout.write(f"{folder}: begin from it with model: {{from: {folder}, init: random}}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
