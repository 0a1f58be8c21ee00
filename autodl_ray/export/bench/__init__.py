"""How fast a bundle answers on this machine, by engine, batch and threads; and what of it suits a small one."""

from autodl_ray.export.bench.edge import EdgeChoice, EdgeFigures, measure_edge, pick_edge
from autodl_ray.export.bench.grid import BenchRow, BenchTable, Grid, bench

__all__ = ["BenchRow", "BenchTable", "EdgeChoice", "EdgeFigures", "Grid", "bench", "measure_edge", "pick_edge"]
