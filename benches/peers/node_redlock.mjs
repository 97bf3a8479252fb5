// redlock, of one server: it asks again every 200 ± 100 ms, its default.

import { require, run, TTL_MS } from "./driver.mjs";

const { default: Redlock } = require("redlock");

function locks(client) {
  const redlock = new Redlock([client]);
  // By default it gives up after ten retries.
  const patient = { retryCount: -1 };
  return (key) => async () => {
    const held = await redlock.acquire([key], TTL_MS, patient);
    return () => held.release();
  };
}

await run("node-redlock", "redlock", locks);
