"""Adds seeds to a claim's arms until the claim is settled: `python -m klear_lab.settle C7`, see `--help`.

It is `python -m analysis settle`, under the name by which runs are started: analysis/settle/ has the code, because
it reads claims, which klear_lab knows nothing of.
"""

import sys

if __name__ == "__main__":
    from analysis.__main__ import main

    sys.exit(main(["settle", *sys.argv[1:]]))
