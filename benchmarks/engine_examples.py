"""What docs/scale.md shows of Spark, Ray and Daft, as a program of their environment: seal a store, or read what is sealed.

python -m benchmarks.engine_examples seal-spark STORE ROOT
python -m benchmarks.engine_examples read-daft ROOT         # prints the number of samples and the sum of their powers
"""

import importlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from llem.seal.sealing import seal
from llem.seal.tasks import Done, Task, perform
from llem.store import Store

CORES = 2


def spark_session() -> Any:
    """On two cores of this machine; on a cluster, `spark-submit` says where."""
    session = importlib.import_module("pyspark.sql").SparkSession
    return session.builder.master(f"local[{CORES}]").config("spark.ui.enabled", "false").getOrCreate()


def by_spark(tasks: Sequence[Task]) -> Iterable[Done]:
    """A partition for each task."""
    return spark_session().sparkContext.parallelize(tasks, len(tasks) or 1).map(perform).collect()


def by_ray(tasks: Sequence[Task]) -> Iterable[Done]:
    """A remote call for each task."""
    ray = ray_here()
    remote = ray.remote(perform)
    return ray.get([remote.remote(task) for task in tasks])


def ray_here() -> Any:
    """Ray with two cores of this machine; on a cluster, `ray job submit` says where."""
    ray = importlib.import_module("ray")
    ray.init(num_cpus=CORES, include_dashboard=False, ignore_reinit_error=True, log_to_driver=False)
    return ray


def read_spark(samples: Path) -> tuple[int, float]:
    """Spark finds experiment and host in the folders' names."""
    frame = spark_session().read.option("basePath", str(samples)).parquet(str(samples))
    return tuple(frame.selectExpr("count(*)", "sum(power_w)").first())


def read_ray(samples: Path) -> tuple[int, float]:
    """Ray Data, by the same names."""
    hive = importlib.import_module("ray.data.datasource").Partitioning("hive")
    ray_here()
    rows = importlib.import_module("ray.data").read_parquet(str(samples), partitioning=hive)
    return rows.count(), rows.sum("power_w")


def read_daft(samples: Path) -> tuple[int, float]:
    """Daft, by the same names."""
    daft = importlib.import_module("daft")
    rows = daft.read_parquet(f"{samples}/**/*.parquet", hive_partitioning=True)
    found = rows.agg(
        daft.col("power_w").count(mode="all").alias("rows"), daft.col("power_w").sum()
    ).to_pydict()
    return found["rows"][0], found["power_w"][0]


SEALING = {"seal-spark": by_spark, "seal-ray": by_ray}
READING = {"read-spark": read_spark, "read-ray": read_ray, "read-daft": read_daft}


def main(what: str, *paths: str) -> None:
    """Do it, and print what came of it as a line of JSON."""
    if what in SEALING:
        store, root = map(Path, paths)
        told = seal(Store(store), root, fan_out=SEALING[what], from_tables=False)
        print(json.dumps([told.segments, told.experiments, list(map(str, told.left))]))
    else:
        (root,) = map(Path, paths)
        print(json.dumps(READING[what](root / "table=samples")))


if __name__ == "__main__":
    main(*sys.argv[1:])
