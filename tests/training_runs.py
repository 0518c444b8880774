"""Training as tests call it: from a config to the run folder."""

from pathlib import Path

from cyclemlp import api
from cyclemlp.tasks.classification.config import ClassificationConfig
from cyclemlp.tasks.detection.config import DetectionConfig
from cyclemlp.tasks.instance_segmentation.task import InstanceSegmentationConfig
from cyclemlp.tasks.segmentation.config import SegmentationConfig


def train_segmentation(config: SegmentationConfig) -> Path:
    return api.train_segmentation(config).folder


def train_classification(config: ClassificationConfig) -> Path:
    return api.train_classification(config).folder


def train_detection(config: DetectionConfig) -> Path:
    if isinstance(config, InstanceSegmentationConfig):
        return api.train_instance_segmentation(config).folder
    return api.train_detection(config).folder
