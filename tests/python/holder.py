"""A process that has a Python AppLocker: evaluates what it is told, line by line.

Arguments: the server's port, the application, the ttl in seconds.
"""

import json
import logging
import sys
import time

from dgapplock import AppLocker

port, application, ttl = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
# With a logger of its own: the package's writes to the standard output.
silent = logging.getLogger("silent")
silent.addHandler(logging.NullHandler())
silent.propagate = False
locker = AppLocker({"host": "127.0.0.1", "port": port}, application, ttl, silent, False)
server = locker.client.client


def sections(count):
    """So many sections under the lock, each of which adds one without an atomic step. How often
    another was inside."""
    overlaps = 0
    for _ in range(count):
        while not locker.acquire():
            time.sleep(0.003)
        overlaps += server.incr("inside") != 1
        total = int(server.get("total") or 0)
        time.sleep(0.002)
        server.set("total", total + 1)
        server.decr("inside")
        locker.release()
    return overlaps


for line in sys.stdin:
    print(json.dumps(eval(line)), flush=True)
