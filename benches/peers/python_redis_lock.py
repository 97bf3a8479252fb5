"""python-redis-lock, in threads: its waiters are woken by a list (BLPOP)."""

from redis import StrictRedis
from redis_lock import Lock

import driver


def connect(url):
    # It waits in BLPOP for as long as the time to live, which redis-py's own limit
    # on answers (5 s) would cut short.
    client = StrictRedis.from_url(
        url, socket_timeout=None, max_connections=driver.CONNECTIONS
    )
    return lambda key: Lock(client, key, expire=driver.TTL_SECONDS)


driver.run("python-redis-lock", "python-redis-lock", connect)
