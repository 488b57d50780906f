"""`python -m finetune` is the command `finetune`."""

import sys

from finetune.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
