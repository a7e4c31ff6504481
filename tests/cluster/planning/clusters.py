"""Models, nodes and links that the tests of the planner share. None is measured."""

from __future__ import annotations

from cluster.mesh.sync_type import SyncType
from cluster.planning.links import LinkSpeed, Network
from cluster.planning.predict import PlanNode, Predictor
from cluster.planning.work import ModelWork, Room, described_tensors
from dllama.config import ModelConfig
from dllama.qtypes import QType
from dllama.speeds import KernelSpeeds, TypeSpeed

GB = 1 << 30
GIGABIT = LinkSpeed.rated(80, 0.94)
SLOW = LinkSpeed.rated(1000, 0.094)


def llama_1b(**changes: object) -> ModelConfig:
    """The shape of Llama 3.2 1B."""
    sizes: dict[str, object] = {
        "arch": "llama", "name": "1b", "dim": 2048, "hidden_dim": 8192, "n_layers": 16,
        "n_heads": 32, "n_kv_heads": 8, "head_dim": 64, "vocab_size": 128256,
        "max_seq_len": 8192, "norm_epsilon": 1e-5, "rope_theta": 5e5, "is_tied": True,
    }  # fmt: skip
    return ModelConfig(**{**sizes, **changes})  # type: ignore[arg-type]


def work_of(config: ModelConfig | None = None, qtype: QType = QType.Q4_0) -> ModelWork:
    config = config or llama_1b()
    return ModelWork(config, described_tensors(config, qtype), Room(256, 256))


def speeds(read: float = 25.0, multiply: float = 300.0, qtype: QType = QType.Q4_0) -> KernelSpeeds:
    return KernelSpeeds([TypeSpeed(qtype, read, multiply)], 100.0, 8.0, 1.0, 60.0, 3.0)


def node(label: str, read: float = 25.0, free_gb: float = 8.0) -> PlanNode:
    return PlanNode(label, label, speeds(read, 12 * read), int(free_gb * GB))


def predictor(
    nodes: list[PlanNode], link: LinkSpeed = GIGABIT, work: ModelWork | None = None
) -> Predictor:
    return Predictor(work or work_of(), nodes, Network({}, link), SyncType.EXACT)
