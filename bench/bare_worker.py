"""The worker of bench/bare_workflow.py: `python -m bench.bare_worker ADDRESS`. No workflow may stand in `__main__`."""

import asyncio
import sys

from bench.bare_workflow import work

if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]))
