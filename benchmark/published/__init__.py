"""Published parameters and multiply-accumulates against ours."""

from benchmark.published.table import measure as measure
from benchmark.published.table import text as text
