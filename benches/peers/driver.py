"""What every Python peer shares: its arguments, its talk with the bench, its loops.

A peer brings `connect(url)`, which returns `lock(key)`, which returns an object with
blocking `acquire()` (true once it holds the lock) and `release()`.
"""

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

# Every peer's time to live: far above any hold, so that no lease runs out by itself.
TTL_SECONDS = 10

# More than all workers need: by default the pool refuses the 101st.
CONNECTIONS = 4096

NANOSECONDS = 1_000_000_000


def run(peer, package, connect):
    """Does what the bench asked for on the command line."""
    args = arguments(peer)
    if args.mode not in MODES:
        return say({"peer": peer, "unsupported": f"has no mode {args.mode}"})
    lock = connect(args.url)
    take(lock(f"{args.key}-warm")).release()
    print("ready", flush=True)
    if not sys.stdin.readline():
        sys.exit("the bench has gone away")
    started = time.monotonic_ns()
    deadline = started + int(args.seconds * NANOSECONDS)
    measured = MODES[args.mode](lock, args, deadline)
    seconds = (time.monotonic_ns() - started) / NANOSECONDS
    say({"peer": peer, "version": version(package), "seconds": seconds, **measured})


def arguments(peer):
    parser = argparse.ArgumentParser(prog=peer)
    parser.add_argument("--url", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("mode")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--hold-us", type=int, default=0)
    parser.add_argument("--pause-us", type=int, default=0)
    return parser.parse_known_args()[0]


def say(answer):
    print(json.dumps(answer), flush=True)


def take(lock):
    if not lock.acquire():
        raise RuntimeError("gave up waiting for the lock")
    return lock


def cycle(lock, args, deadline):
    mine = lock(args.key)
    times = []
    start = time.monotonic_ns()
    while start < deadline:
        take(mine).release()
        end = time.monotonic_ns()
        times.append(end - start)
        start = end
    times.sort()
    quarter = times[round((len(times) - 1) * 0.25)] / 1e3
    return {"cycles": len(times), "quarter": quarter}


def workers(lock, args, deadline):
    hold, pause = args.hold_us / 1e6, args.pause_us / 1e6
    with ThreadPoolExecutor(args.workers) as pool:
        started = [
            pool.submit(work, lock(args.key), number, hold, pause, deadline)
            for number in range(args.workers)
        ]
        return {"sections": [section for each in started for section in each.result()]}


def work(lock, number, hold, pause, deadline):
    """The sections of one worker. A worker that waits at the
    deadline still gets the lock: the bench counts it for the commands that it took, and not for anything else."""
    sections = []
    while time.monotonic_ns() < deadline:
        take(lock)
        start = time.monotonic_ns()
        if hold:
            time.sleep(hold)
        sections.append((start, time.monotonic_ns(), number))
        lock.release()
        if pause:
            time.sleep(pause)
    return sections


MODES = {"cycle": cycle, "workers": workers}
