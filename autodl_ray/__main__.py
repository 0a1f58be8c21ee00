"""`python -m autodl_ray` is the command `autodl`."""

from autodl_ray.cli import main

if __name__ == "__main__":
    main()
