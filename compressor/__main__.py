"""`python -m compressor`, so that `accelerate launch -m compressor` and `torchrun -m compressor` work too.

It must never hold anything but the call.
"""

from compressor.cli.main import run

if __name__ == "__main__":
    run()
