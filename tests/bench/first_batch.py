"""Run a command line of `finetune` and end the process when its first batch is computed.

python tests/bench/first_batch.py run --data photos --recipe probe
"""

import os
import sys

from finetune.cli.app import main
from finetune.cli.display import RunDisplay
from finetune.train.events import Event, Progressed

show = RunDisplay.__call__


def show_and_end(self: RunDisplay, event: Event) -> None:
    """Show an event; the first progress of anything but the check of the photos is the last."""
    show(self, event)
    if isinstance(event, Progressed) and event.what != "check":
        os._exit(0)


RunDisplay.__call__ = show_and_end
sys.exit(main())
