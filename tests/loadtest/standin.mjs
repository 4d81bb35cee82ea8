// A stand-in for k6: runs loadtest/k6/*.js in Node, as far as these scripts need it, for tests on machines without k6.
//
//   node standin.mjs inspect MAIN.js      the options, with maxVUs and totalDuration as `k6 inspect` adds them
//   node standin.mjs run MAIN.js          a run; its exit code is 0, 99 (a threshold crossed), 104 or 107 as k6's
//
// Flags of k6's, as --out=... and --tag=..., are taken and do nothing, so that it can stand in the place of k6's image.
//
// It is no k6: it proves what the scripts ask, check and write, and that their thresholds tell a sound application from a
// broken one. It proves nothing of k6's own parsing, timing and cost.
//
// Each virtual user is a thread with a JavaScript world of its own, as in k6, because k6's calls do not return before
// they are done: a thread sleeps in Atomics.wait while another one does the HTTP.

import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { MessageChannel, Worker, isMainThread, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';

const SELF = fileURLToPath(import.meta.url);
const EXIT = { fine: 0, crossed: 99, configuration: 104, script: 107 };
const secondsOf = (text) => {
  const found = /^(\d+(?:\.\d+)?)(ms|s|m)$/.exec(text);
  if (!found) {
    throw new Error(`no duration: ${text}`);
  }
  return Number(found[1]) * { ms: 0.001, s: 1, m: 60 }[found[2]];
};

// --- what the scripts import -----------------------------------------------------------------------------------------

let samples = [];
let ambient = {};
let exchange = () => {
  throw new Error('no request can be made here');
};

const note = (metric, value, tags) => samples.push({ metric, value, tags: { ...ambient, ...tags } });
const pause = (seconds) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, seconds * 1000);

function request(method, url, body, parameters = {}) {
  const headers = {};
  let text = body;
  if (body !== null && typeof body === 'object') {
    text = new URLSearchParams(body).toString();
    headers['Content-Type'] = 'application/x-www-form-urlencoded';
  }
  const timeoutSeconds = secondsOf(parameters.timeout || '60s');
  const response = exchange({ method, url, headers, body: text, timeoutSeconds });
  const expected = parameters.responseCallback || ((status) => status >= 200 && status < 400);
  const right = expected(response.status);
  const tags = { ...parameters.tags, status: String(response.status), expected_response: String(right) };
  note('http_reqs', 1, tags);
  note('http_req_duration', response.milliseconds, tags);
  note('http_req_failed', right ? 0 : 1, tags);
  return response;
}

globalThis.standin = {
  check(value, sets, tags) {
    let all = true;
    for (const [name, holds] of Object.entries(sets)) {
      const held = Boolean(holds(value));
      note('checks', held ? 1 : 0, { ...tags, check: name });
      all = all && held;
    }
    return all;
  },
  sleep: pause,
  http: {
    get: (url, parameters) => request('GET', url, null, parameters),
    post: (url, body, parameters) => request('POST', url, body, parameters),
    expectedStatuses: ({ min, max }) => (status) => status >= min && status <= max,
  },
};

const MODULES = {
  'index.js': 'export const { check, sleep } = globalThis.standin;',
  'http.js': 'export default globalThis.standin.http;',
};

// A copy of the scripts beside a package by k6's name, so that Node finds what they import.
function laidOut(main) {
  const folder = mkdtempSync(join(tmpdir(), 'k6-standin-'));
  for (const name of readdirSync(dirname(main)).filter((one) => one.endsWith('.js'))) {
    cpSync(join(dirname(main), name), join(folder, name), { dereference: true }); // a ConfigMap's files are links
  }
  writeFileSync(join(folder, 'package.json'), '{"type": "module"}');
  const target = join(folder, 'node_modules', 'k6');
  mkdirSync(target, { recursive: true });
  writeFileSync(
    join(target, 'package.json'),
    '{"name": "k6", "type": "module", "exports": {".": "./index.js", "./http": "./http.js"}}',
  );
  for (const [name, text] of Object.entries(MODULES)) {
    writeFileSync(join(target, name), text);
  }
  return folder;
}

// --- threads ---------------------------------------------------------------------------------------------------------

// Does the HTTP of one virtual user, and wakes it.
function serveExchanges({ port, signal }) {
  const agent = new http.Agent({ keepAlive: true });
  port.on('message', ({ method, url, headers, body, timeoutSeconds }) => {
    const began = performance.now();
    const answer = (fields) => {
      port.postMessage({ milliseconds: performance.now() - began, body: '', error: '', ...fields });
      Atomics.store(signal, 0, 1);
      Atomics.notify(signal, 0);
    };
    const asked = http.request(url, { method, headers, agent, timeout: timeoutSeconds * 1000 }, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('end', () => answer({ status: response.statusCode, body: Buffer.concat(parts).toString() }));
    });
    asked.on('timeout', () => asked.destroy(new Error('request timeout')));
    asked.on('error', (error) => answer({ status: 0, error: error.code || error.message }));
    asked.end(body || undefined);
  });
}

// A virtual user: does what it is told by the main thread, one thing at a time.
async function live({ script, environment, port, signal }) {
  globalThis.__ENV = environment;
  exchange = (asked) => {
    Atomics.store(signal, 0, 0);
    port.postMessage(asked);
    Atomics.wait(signal, 0, 0);
    return receiveMessageOnPort(port).message;
  };
  const loaded = await import(script);
  parentPort.on('message', ({ call, tags }) => {
    ambient = tags;
    samples = [];
    const began = performance.now();
    let result;
    let failure = null;
    try {
      result = loaded[call]();
    } catch (error) {
      failure = error.message;
    }
    if (call !== 'setup') {
      note('iterations', 1, {});
      note('iteration_duration', performance.now() - began, {});
    }
    parentPort.postMessage({ call, result, failure, samples });
  });
  parentPort.postMessage({ call: 'born' });
}

class VirtualUser {
  constructor(script, environment) {
    const { port1, port2 } = new MessageChannel();
    const signal = new Int32Array(new SharedArrayBuffer(4));
    const start = (role, port) => new Worker(SELF, { workerData: { role, script, environment, port, signal }, transferList: [port] });
    this.io = start('io', port1);
    this.thread = start('user', port2);
    this.thread.on('error', (error) => this.waiting && this.waiting({ failure: error.message, samples: [] }));
    this.thread.on('message', (said) => this.waiting && this.waiting(said));
    this.born = this.heard();
    this.busy = false;
  }

  heard() {
    return new Promise((tell) => {
      this.waiting = tell;
    });
  }

  async perform(call, tags) {
    this.busy = true;
    const done = this.heard();
    this.thread.postMessage({ call, tags });
    const said = await done;
    this.busy = false;
    return said;
  }

  end() {
    return Promise.all([this.thread.terminate(), this.io.terminate()]);
  }
}

// --- metrics and thresholds ------------------------------------------------------------------------------------------

const KINDS = {
  http_reqs: 'counter',
  iterations: 'counter',
  dropped_iterations: 'counter',
  http_req_duration: 'trend',
  iteration_duration: 'trend',
  http_req_failed: 'rate',
  checks: 'rate',
  vus: 'gauge',
  vus_max: 'gauge',
};
const CONTAINS = { http_req_duration: 'time', iteration_duration: 'time' };

function quantile(sorted, share) {
  const place = (sorted.length - 1) * share;
  const below = Math.floor(place);
  return sorted[below] + ((sorted[Math.min(below + 1, sorted.length - 1)] - sorted[below]) * (place - below) || 0);
}

function valuesOf(kind, all, elapsedSeconds) {
  const sum = all.reduce((total, value) => total + value, 0);
  switch (kind) {
    case 'counter':
      return { count: sum, rate: sum / elapsedSeconds };
    case 'rate':
      return { rate: all.length > 0 ? sum / all.length : 0, passes: sum, fails: all.length - sum };
    case 'gauge':
      return { value: all.at(-1) ?? 0, min: Math.min(...all), max: Math.max(...all) };
    default: {
      const sorted = [...all].sort((a, b) => a - b);
      const at = (share) => (sorted.length > 0 ? quantile(sorted, share) : 0);
      const average = sorted.length > 0 ? sum / sorted.length : 0;
      return {
        avg: average, min: at(0), med: at(0.5), max: at(1), 'p(90)': at(0.9), 'p(95)': at(0.95), 'p(99)': at(0.99),
        count: sorted.length,
      };
    }
  }
}

const COMPARISONS = {
  '<': (a, b) => a < b, '<=': (a, b) => a <= b, '>': (a, b) => a > b, '>=': (a, b) => a >= b,
};

function parsed(threshold) {
  const found = /^(rate|count|min|max|avg|med|p\(\d+\))\s*(<=|>=|<|>)\s*(\d+(?:\.\d+)?)$/.exec(threshold);
  if (!found) {
    throw new Error(`no threshold: ${threshold}`);
  }
  return (values) => COMPARISONS[found[2]](values[found[1]], Number(found[3]));
}

class Metrics {
  constructor(thresholds) {
    this.began = performance.now();
    this.series = new Map();
    this.held = [];
    for (const name of ['http_reqs', 'iterations', 'http_req_duration', 'iteration_duration', 'http_req_failed', 'checks', 'vus', 'vus_max']) {
      this.series.set(name, this.empty(name));
    }
    for (const [name, rules] of Object.entries(thresholds)) {
      if (!this.series.has(name)) {
        this.series.set(name, this.empty(name));
      }
      for (const rule of rules) {
        const { threshold, ...abort } = typeof rule === 'string' ? { threshold: rule } : rule;
        this.held.push({ name, threshold, holds: parsed(threshold), ...abort });
      }
    }
  }

  empty(name) {
    const [, metric, tag, value] = /^(\w+)(?:\{(\w+):(\w+)\})?$/.exec(name);
    if (!(metric in KINDS)) {
      throw new Error(`a threshold names a metric that does not exist: ${name}`);
    }
    return { metric, tag, value, all: [] };
  }

  add(added) {
    for (const sample of added) {
      for (const one of this.series.values()) {
        if (one.metric === sample.metric && (one.tag === undefined || sample.tags[one.tag] === one.value)) {
          one.all.push(sample.value);
        }
      }
    }
  }

  values(name) {
    const { metric, all } = this.series.get(name);
    return valuesOf(KINDS[metric], all, (performance.now() - this.began) / 1000);
  }

  hopeless() {
    const seconds = (performance.now() - this.began) / 1000;
    return this.held.some(
      ({ name, holds, abortOnFail, delayAbortEval }) =>
        abortOnFail && seconds > secondsOf(delayAbortEval) && this.series.get(name).all.length > 0 && !holds(this.values(name)),
    );
  }

  // In the form of the `metrics` that k6 hands to handleSummary.
  told() {
    const told = {};
    for (const [name, { metric }] of this.series) {
      const thresholds = {};
      for (const { threshold, holds } of this.held.filter((one) => one.name === name)) {
        thresholds[threshold] = { ok: holds(this.values(name)) };
      }
      told[name] = { type: KINDS[metric], contains: CONTAINS[metric] || 'default', values: this.values(name) };
      if (Object.keys(thresholds).length > 0) {
        told[name].thresholds = thresholds;
      }
    }
    return told;
  }
}

// --- scenarios -------------------------------------------------------------------------------------------------------

const targetAt = (stages, start, seconds) => {
  let from = start;
  let left = seconds;
  for (const { duration, target } of stages) {
    const length = secondsOf(duration);
    if (left < length) {
      return from + ((target - from) * left) / length;
    }
    left -= length;
    from = target;
  }
  return undefined;
};

const lengthOf = (stages) => stages.reduce((sum, { duration }) => sum + secondsOf(duration), 0);
const mostUsers = (scenario) =>
  scenario.executor === 'ramping-vus' ? Math.max(scenario.startVUs, ...scenario.stages.map(({ target }) => target)) : scenario.maxVUs;
const soon = () => new Promise((tell) => setTimeout(tell, 10));

async function ramp({ name, scenario, users, metrics, over }) {
  const tags = { scenario: name };
  const begin = performance.now();
  const now = () => targetAt(scenario.stages, scenario.startVUs ?? scenario.startRate, (performance.now() - begin) / 1000);
  const perform = (user) => user.perform(scenario.exec, tags).then(({ samples: more, failure }) => {
    metrics.add(more);
    if (failure) {
      process.stderr.write(`${failure}\n`);
    }
  });
  let owed = 0;
  let last = begin;
  for (let target = now(); target !== undefined && !over(); target = now()) {
    if (scenario.executor === 'ramping-vus') {
      users.slice(0, Math.ceil(target)).filter((user) => !user.busy).forEach(perform);
    } else {
      owed += (target * (performance.now() - last)) / 1000;
      last = performance.now();
      for (; owed >= 1; owed -= 1) {
        const idle = users.find((user) => !user.busy);
        if (idle) {
          perform(idle);
        } else {
          metrics.add([{ metric: 'dropped_iterations', value: 1, tags }]);
        }
      }
    }
    metrics.add([{ metric: 'vus', value: users.filter((user) => user.busy).length, tags: {} }]);
    await soon();
  }
  const patience = performance.now() + secondsOf(scenario.gracefulStop) * 1000;
  while (users.some((user) => user.busy) && performance.now() < patience) {
    await soon();
  }
}

async function run(script, environment) {
  const loaded = await import(script);
  const [[name, scenario]] = Object.entries(loaded.options.scenarios);
  let metrics;
  try {
    metrics = new Metrics(loaded.options.thresholds);
  } catch (error) {
    process.stderr.write(`${error.message}\n`);
    return EXIT.configuration;
  }
  const users = Array.from({ length: mostUsers(scenario) }, () => new VirtualUser(script, environment));
  try {
    await Promise.all(users.map((user) => user.born));
    metrics.began = performance.now();
    metrics.add([{ metric: 'vus_max', value: users.length, tags: {} }]);
    const prepared = await users[0].perform('setup', {});
    metrics.add(prepared.samples);
    if (prepared.failure) {
      process.stderr.write(`${prepared.failure}\n`);
      return EXIT.script;
    }
    await ramp({ name, scenario, users, metrics, over: () => metrics.hopeless() });
    const told = metrics.told();
    const state = { testRunDurationMs: performance.now() - metrics.began, isStdOutTTY: false };
    const written = loaded.handleSummary({ metrics: told, setup_data: prepared.result, state, options: {}, root_group: {} });
    for (const [path, text] of Object.entries(written)) {
      path === 'stdout' ? process.stdout.write(text) : writeFileSync(path, text);
    }
    const broken = Object.values(told).some(({ thresholds = {} }) => Object.values(thresholds).some(({ ok }) => !ok));
    return broken ? EXIT.crossed : EXIT.fine;
  } finally {
    await Promise.all(users.map((user) => user.end()));
  }
}

async function inspect(script) {
  const { options } = await import(script);
  const scenarios = Object.values(options.scenarios);
  const seconds = Math.max(...scenarios.map(({ stages, gracefulStop }) => lengthOf(stages) + secondsOf(gracefulStop)));
  const minutes = Math.floor(seconds / 60);
  const totalDuration = `${minutes}m${seconds - 60 * minutes}s`;
  process.stdout.write(`${JSON.stringify({ ...options, maxVUs: Math.max(...scenarios.map(mostUsers)), totalDuration })}\n`);
  return EXIT.fine;
}

async function main() {
  const [command, file] = process.argv.slice(2).filter((word) => !word.startsWith('--'));
  globalThis.__ENV = { ...process.env };
  const folder = laidOut(resolve(file));
  const script = pathToFileURL(join(folder, basename(file))).href;
  try {
    process.exitCode = command === 'inspect' ? await inspect(script) : await run(script, globalThis.__ENV);
  } catch (error) {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = EXIT.script;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

if (isMainThread) {
  await main();
} else if (workerData.role === 'io') {
  serveExchanges(workerData);
} else {
  await live(workerData);
}
