"""Stages 2 and 3 of a pre-activation ResNet-50: the teacher of the bundled backbone."""

from __future__ import annotations

from torch import Tensor, nn

MEAN = (0.45222315, 0.42570502, 0.37756839)
STD = (0.28551354, 0.27888468, 0.28231028)


class ResNetV2Stages(nn.Module):
    """Rectified outputs of the second and third stage of ``resnetv2_50``.

    Attributes:
        channels: Channels of the two maps.
        strides: Strides of the two maps.
    """

    channels = (512, 1024)
    strides = (8, 16)

    def __init__(self) -> None:
        """Builds the network with random weights."""
        super().__init__()
        import timm
        from timm.layers import BatchNormAct2d, create_conv2d
        from timm.models.resnetv2 import create_resnetv2_stem

        model = timm.create_model("resnetv2_50", pretrained=False)
        # This network has batch norm and ReLU in its stem, unlike timm's, and ends with stage 3.
        self.stem = create_resnetv2_stem(3, 64, "", preact=False, conv_layer=create_conv2d, norm_layer=BatchNormAct2d)
        self.stages = nn.ModuleList(list(model.get_submodule("stages").children())[:3])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Computes the two feature maps.

        Args:
            x: Normalised RGB images, (N, 3, H, W) float32: (value in [0, 1] - `MEAN`) / `STD`.

        Returns:
            Maps (N, 512, H / 8, W / 8) and (N, 1024, H / 16, W / 16), float32, not negative.
        """
        middle = self.stages[1](self.stages[0](self.stem(x)))
        return [middle.relu(), self.stages[2](middle).relu()]
