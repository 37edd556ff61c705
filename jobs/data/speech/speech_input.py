"""What a speech model asks of its data: how samples are scaled, how many frames come of them, which units it knows."""

from dataclasses import dataclass

from transformers import PretrainedConfig, Wav2Vec2FeatureExtractor


@dataclass(frozen=True)
class SpeechInput:
    """Read from the starting checkpoint.

    Attributes:
        extractor: Sampling rate, and whether clips are scaled to mean 0 and variance 1.
        config: The model's configuration.
        tokens: Units that the checkpoint's head was trained with, in order of their number; () if it has none.
    """

    extractor: Wav2Vec2FeatureExtractor
    config: PretrainedConfig
    tokens: tuple[str, ...]

    @property
    def sampling_rate(self) -> int:
        """Samples per second that the model hears."""
        return int(self.extractor.sampling_rate)

    @property
    def sees_padding(self) -> bool:
        """Whether the model is told which samples are padding. Base models (group norm over time) are not: what they
        say of a clip depends on the padding behind it."""
        return str(self.config.feat_extract_norm) == "layer"

    def frames(self, num_samples: int) -> int:
        """Frames that the feature encoder makes of a clip: floor((n - kernel) / stride) + 1, layer after layer."""
        for kernel, stride in zip(self.config.conv_kernel, self.config.conv_stride, strict=True):
            num_samples = (num_samples - kernel) // stride + 1
        return max(0, num_samples)
