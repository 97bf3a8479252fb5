// redis-semaphore's Mutex: it asks again every 10 ms, its default.

import { require, run, TTL_MS } from "./driver.mjs";

const { Mutex } = require("redis-semaphore");

function locks(client) {
  // By default it gives up after ten seconds.
  const settings = { lockTimeout: TTL_MS, acquireTimeout: Infinity };
  return (key) => {
    const mutex = new Mutex(client, key, settings);
    return async () => {
      await mutex.acquire();
      return () => mutex.release();
    };
  };
}

await run("redis-semaphore", "redis-semaphore", locks);
