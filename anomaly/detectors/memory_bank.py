"""Memory bank detector (PatchCore family): distance of a patch to the nearest normal patch.

Source: Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022 (arXiv 2106.08265).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from anomaly.backbones import Backbone, load_backbone
from anomaly.detectors.coreset import k_center, k_means
from anomaly.detectors.embedding import EmbeddingScorer, OnePassDetector, project
from anomaly.detectors.levels import Batch, Sample, level_map
from anomaly.errors import SettingError
from anomaly.input_spec import Images

_CHUNK = 65_536
_QUERIES = 512
_EQUAL = 4e-6  # squared distance, as a share of the mean squared norm of the bank, that float16 can make of nothing


@dataclass(frozen=True, kw_only=True)
class MemoryBankDetector(OnePassDetector):
    """Distance to the nearest of a bank of normal patches.

    Features are projected on the principal components of the first chunk of patches and reduced chunk by chunk, so
    memory does not grow with the number of images: a coreset of coresets is a coreset (Indyk et al., Composable
    Core-sets for Diversity and Coverage Maximization, PODS 2014). The first images should be typical: give them in
    random order.

    Memory of a fit: one chunk of max(65,536, 4 x bank_size) patches in float16, first with all features, later
    projected, and the features of 64 images in float16. Cost: the backbone, plus chunk x bank_size x 64 multiplications
    a chunk. Scoring: bank_size x components multiplications a patch. Bank in the artifact: bank_size x components x 2
    bytes.

    Attributes:
        bank_size: number of patches that are kept; 1 % of 200 images of 256 x 256 px are 2,048.
        components: principal components that the features are projected on, at most.
        reduction: "k_center" (greedy coreset, keeps rare normals) or "k_means" (prototypes, cheaper).
    """

    name: ClassVar[str] = "memory_bank"
    state_names: ClassVar[tuple[str, ...]] = ("level", "center", "basis", "bank")

    bank_size: int = 4096
    components: int = 192
    reduction: Literal["k_center", "k_means"] = "k_center"

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        super().__post_init__()
        if not 1 <= self.bank_size <= 1_000_000:
            raise SettingError.of(self.name, "bank_size", "1 to 1,000,000", self.bank_size)
        if not 1 <= self.components <= 4096:
            raise SettingError.of(self.name, "components", "1 to 4,096", self.components)
        if self.reduction not in ("k_center", "k_means"):
            raise SettingError.of(self.name, "reduction", "'k_center' or 'k_means'", self.reduction)

    def fit(self, images: Iterable[Images]) -> "MemoryBankScorer":
        """Streams features, projects them and reduces them chunk by chunk. See `Detector.fit`."""
        backbone = load_backbone(self.backbone)
        bank = _Bank(self)
        sample: Sample | None = None
        for batch in self.stream(backbone, self.enriched(images)):
            bank.add(batch)
            sample = batch.kept() if sample is None else sample.merge(batch.kept())
        assert sample is not None
        settings = replace(self, backbone=backbone.spec)
        center, basis, patches, owners = bank.close()
        scorer = MemoryBankScorer(settings, backbone, None, center, basis, patches)
        if not self.relative:
            return scorer
        level = level_map(scorer.leave_one_out(sample, owners), torch.stack(sample.inside))
        return MemoryBankScorer(settings, backbone, level, center, basis, patches)

    def rebuild(self, backbone: Backbone, state: Mapping[str, Tensor]) -> "MemoryBankScorer":
        """Builds the scorer from a loaded backbone and stored tensors."""
        return MemoryBankScorer(self, backbone, state["level"], state["center"], state["basis"], state["bank"])


class _Bank:
    """Collects patches, never more than a chunk of them beyond the bank itself."""

    def __init__(self, settings: MemoryBankDetector) -> None:
        self.settings = settings
        self.chunk = max(_CHUNK, 4 * settings.bank_size)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.waiting: list[Tensor] = []
        self.owners: list[Tensor] = []
        self.center = torch.empty(0)
        self.basis = torch.empty(0, 0)
        self.bank = torch.empty(0, 0)
        self.bank_owners = torch.empty(0, dtype=torch.long)
        self.seen = torch.empty(0)

    def add(self, batch: Batch) -> None:
        features = batch.features[batch.inside]
        self.waiting.append(self._projected(features) if len(self.basis) else features.half())
        self.owners.append(batch.keys[:, None, None].expand(batch.inside.shape)[batch.inside])
        if sum(len(w) for w in self.waiting) >= self.chunk:
            self._reduce()

    def close(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns centre, basis, bank, and the key of the image that each patch of the bank came from."""
        if self.waiting:
            self._reduce()
        return self.center, self.basis, self.bank, self.bank_owners

    def _reduce(self) -> None:
        if not len(self.basis):
            self._find_basis()
        points, owners = torch.cat(self.waiting), torch.cat(self.owners)
        self.waiting, self.owners = [], []
        size = self.settings.bank_size
        if self.settings.reduction == "k_center":
            if len(self.bank):
                points, owners = torch.cat([self.bank, points]), torch.cat([self.bank_owners, owners])
            kept = k_center(points, size, self.generator)
            self.bank, self.bank_owners = points[kept], owners[kept]
            return
        points = points.float()
        if not len(self.bank):
            start = torch.randperm(len(points), generator=self.generator)[:size]
            self.bank, self.seen = points[start], torch.zeros(len(start))
        self.bank, self.seen = k_means(points, self.bank, self.seen)
        self.bank_owners = torch.zeros(len(self.bank), dtype=torch.long)  # a prototype belongs to no single image

    def _find_basis(self) -> None:
        count = sum(len(w) for w in self.waiting)
        self.center = torch.stack([w.float().sum(dim=0) for w in self.waiting]).sum(dim=0) / count
        covariance = torch.zeros(len(self.center), len(self.center))
        for w in self.waiting:
            centred = w.float() - self.center
            covariance += centred.T @ centred
        vectors = torch.linalg.eigh(covariance.double()).eigenvectors.float()
        self.basis = vectors[:, -self.settings.components :].contiguous()
        for i, w in enumerate(self.waiting):  # one by one, so that both forms of a chunk are never held
            self.waiting[i] = self._projected(w.float())

    def _projected(self, features: Tensor) -> Tensor:
        return ((features - self.center) @ self.basis).half()


class MemoryBankScorer(EmbeddingScorer):
    """Distance of patches to the bank: one matrix product with precomputed norms."""

    center: Tensor
    basis: Tensor
    bank: Tensor
    offset: Tensor
    transposed: Tensor
    norms: Tensor

    def __init__(
        self,
        detector: MemoryBankDetector,
        backbone: Backbone,
        level: Tensor | None,
        center: Tensor,
        basis: Tensor,
        bank: Tensor,
    ) -> None:
        """Stores centre (D,) and basis (D, k) in float32 and the bank (m, k) in float16."""
        super().__init__(detector, backbone, level)
        self._detector = detector
        self.register_buffer("center", center)
        self.register_buffer("basis", basis)
        self.register_buffer("bank", bank.half())
        exact = bank.half().float()
        self.register_buffer("offset", -(center @ basis), persistent=False)
        self.register_buffer("transposed", exact.T.contiguous(), persistent=False)
        self.register_buffer("norms", exact.square().sum(dim=1), persistent=False)

    def patch_scores(self, maps: list[Tensor]) -> Float[Tensor, "n h w"]:
        """Returns the Euclidean distance to the nearest patch of the bank."""
        queries = project(maps, self.basis, self.offset)
        return self._nearest(queries.flatten(0, 2), self.norms).view(queries.shape[:3])

    def leave_one_out(self, sample: Sample, owners: Tensor) -> Float[Tensor, "k h w"]:
        """Scores training images against the patches of the bank that came from other images."""
        scores = []
        for key, features in zip(sample.keys, sample.features, strict=True):
            norms = torch.where(owners == key, torch.inf, self.norms)
            queries = features.float().flatten(0, 1) @ self.basis + self.offset
            scores.append(self._nearest(queries, norms).view(features.shape[:2]))
        return torch.nan_to_num(torch.stack(scores), posinf=0.0)  # a single image has no others

    def reduced(
        self, bank: int | None, components: int | None, images: Iterable[Images], *, fitted: bool
    ) -> "MemoryBankScorer":
        """Keeps fewer patches (a coreset of the bank) and components. See `anomaly.compression.Reducible`.

        The bank does not say which image a patch came from; patches all but equal to one of an image count as its own,
        as they are left out where it is scored for the levels. `fitted` makes no difference to that.
        """
        size, kept = len(self.bank) if bank is None else bank, self.basis.shape[1] if components is None else components
        for name, wanted, own in (("bank", size, len(self.bank)), ("components", kept, self.basis.shape[1])):
            if wanted > own:
                raise SettingError.of("Compression", name, f"at most {own}, as many as the model has", wanted)
        settings = replace(self._detector, bank_size=size, components=kept)
        patches = self.bank[:, -kept:].float()  # the first components vary least
        chosen = k_center(patches, size, torch.Generator().manual_seed(settings.seed))
        parts = self.center, self.basis[:, -kept:].contiguous(), patches[chosen]
        scorer = MemoryBankScorer(settings, self.backbone, None, *parts)
        sample = settings.sample(self.backbone, images)
        level = None
        if settings.relative:
            level = level_map(scorer.without_equals(sample), torch.stack(sample.inside))
        return MemoryBankScorer(settings, self.backbone, level, *parts)

    def without_equals(self, sample: Sample) -> Float[Tensor, "k h w"]:
        """Scores images against the patches of the bank that none of their own patches (all but) equals."""
        near = (_EQUAL * self.norms.mean()).sqrt()
        scores = []
        for features in sample.features:
            queries = features.float().flatten(0, 1) @ self.basis + self.offset
            distance = torch.cdist(queries, self.transposed.T)
            others = distance.masked_fill(distance.amin(dim=0) < near, torch.inf)
            scores.append(others.amin(dim=1).view(features.shape[:2]))
        return torch.nan_to_num(torch.stack(scores), posinf=0.0)

    def _nearest(self, queries: Float[Tensor, "q k"], norms: Float[Tensor, " m"]) -> Float[Tensor, " q"]:
        # Blocks keep the distances within the processor's cache; an exported graph has one block.
        blocks = (queries,) if torch.compiler.is_exporting() else torch.split(queries, _QUERIES)
        nearest = [torch.addmm(norms, block, self.transposed, alpha=-2).amin(dim=1) for block in blocks]
        return (torch.cat(nearest) + queries.square().sum(dim=1)).clamp(min=0).sqrt()
