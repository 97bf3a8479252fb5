// What every node peer shares: its arguments, its talk with the bench, its loops.
//
// A peer brings `locks(client)`, which returns `lock(key)`, which returns an async
// `take()`: it waits for the lock and resolves to the async `release()`.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

// Every peer's time to live: far above any hold, so that no lease runs out by itself.
export const TTL_MS = 10_000;

const MODULES = path.resolve(
  process.env.APPLOCK_NODE_MODULES || path.dirname(fileURLToPath(import.meta.url)),
);

// `require` of the packages in `APPLOCK_NODE_MODULES`.
export const require = createRequire(path.join(MODULES, "peers.cjs"));

// Nanoseconds; exact to one of them until the machine has run for 104 days.
const now = () => Number(process.hrtime.bigint());

// Does what the bench asked for on the command line.
export async function run(peer, pkg, locks) {
  const args = readArguments();
  if (!(args.mode in MODES)) {
    return say({ peer, unsupported: `has no mode ${args.mode}` });
  }
  const lock = locks(await connect(args.url));
  const release = await lock(`${args.key}-warm`)();
  await release();
  await readyAndTold();
  const started = now();
  const deadline = started + args.seconds * 1e9;
  const measured = await MODES[args.mode](lock, args, deadline);
  const seconds = (now() - started) / 1e9;
  say({ peer, version: versionOf(pkg), seconds, ...measured });
}

// One connection, for all workers. Without its server the peer fails instead of
// waiting for it.
async function connect(url) {
  const { Redis } = require("ioredis");
  const client = new Redis(url, { retryStrategy: () => null });
  await client.ping();
  return client;
}

function readArguments() {
  const text = { type: "string" };
  const { values, positionals } = parseArgs({
    options: {
      url: text,
      key: text,
      seconds: text,
      workers: text,
      "hold-us": text,
      "pause-us": text,
    },
    allowPositionals: true,
    strict: false,
  });
  return {
    url: values.url,
    key: values.key,
    mode: positionals[0],
    seconds: Number(values.seconds),
    workers: Number(values.workers ?? 1),
    holdMs: Number(values["hold-us"] ?? 0) / 1e3,
    pauseMs: Number(values["pause-us"] ?? 0) / 1e3,
  };
}

async function readyAndTold() {
  console.log("ready");
  const input = createInterface({ input: process.stdin });
  for await (const _ of input) return;
  throw new Error("the bench has gone away");
}

// The connections that a peer leaves open would keep the process running.
function say(answer) {
  process.stdout.write(`${JSON.stringify(answer)}\n`, () => process.exit());
}

// Not every package lets its package.json be required.
function versionOf(pkg) {
  for (const folder of require.resolve.paths(pkg)) {
    try {
      const about = readFileSync(path.join(folder, pkg, "package.json"), "utf8");
      return JSON.parse(about).version.replace(/^v/, "");
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
    }
  }
  throw new Error(`${pkg} is not installed in ${MODULES}`);
}

async function cycle(lock, args, deadline) {
  const take = lock(args.key);
  const times = [];
  for (let start = now(), end; start < deadline; start = end) {
    const release = await take();
    await release();
    end = now();
    times.push(end - start);
  }
  times.sort((one, other) => one - other);
  const quarter = times[Math.round((times.length - 1) * 0.25)] / 1e3;
  return { cycles: times.length, quarter };
}

async function workers(lock, args, deadline) {
  const each = Array.from({ length: args.workers }, (_, number) =>
    work(lock(args.key), number, args, deadline),
  );
  return { sections: (await Promise.all(each)).flat() };
}

// The sections of one worker. A worker that waits at the deadline still gets the
// lock: the bench counts it for the commands that it took, and not for anything else.
async function work(take, number, { holdMs, pauseMs }, deadline) {
  const sections = [];
  while (now() < deadline) {
    const release = await take();
    const start = now();
    if (holdMs > 0) await sleep(holdMs);
    sections.push([start, now(), number]);
    await release();
    if (pauseMs > 0) await sleep(pauseMs);
  }
  return sections;
}

const MODES = { cycle, workers };
