"""redis-py's own lock, in threads: it asks again every 0.1 s, its default."""

from redis import Redis

import driver


def connect(url):
    client = Redis.from_url(url, max_connections=driver.CONNECTIONS)
    return lambda key: client.lock(key, timeout=driver.TTL_SECONDS)


driver.run("redis-py", "redis", connect)
