"""Training: data as tensors, one recipe value, one loop, keyed random streams."""

from overconv.training.data import DATASETS as DATASETS
from overconv.training.data import Dataset as Dataset
from overconv.training.data import load as load
from overconv.training.loop import Result as Result
from overconv.training.loop import train as train
from overconv.training.recipe import Recipe as Recipe
from overconv.training.streams import seeded as seeded
from overconv.training.streams import stream as stream
