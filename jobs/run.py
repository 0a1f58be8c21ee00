"""The entry point of a Ray job: the same spec, the same command line, on a cluster.

ray job submit --working-dir . -- python jobs/run.py --spec jobs/photos.yaml --json
"""

from autodl_ray.cli import main

if __name__ == "__main__":
    import sys

    main(["run", *sys.argv[1:]])
