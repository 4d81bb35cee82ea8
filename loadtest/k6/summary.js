// What a run leaves behind: a table for a person, and one line of JSON for `podtally loadtest`.

import { ENDPOINTS } from './application.js';

const BEGIN = '-----BEGIN PODTALLY K6 SUMMARY-----';
const END = '-----END PODTALLY K6 SUMMARY-----';

function summaryOf(data, settings, options) {
  const value = (metric, name) => (data.metrics[metric] ? data.metrics[metric].values[name] : undefined);
  const started = data.setup_data ? data.setup_data.started : null;
  return {
    version: 1,
    profile: settings.profile,
    testid: settings.testid,
    scale: settings.scale,
    started,
    ended: new Date().toISOString(),
    vus_max: value('vus_max', 'max') || 0,
    duration_seconds: data.state.testRunDurationMs / 1000,
    options: {
      target: settings.target,
      time_scale: settings.timeScale,
      think_seconds: settings.thinkSeconds,
      users: settings.users,
      scenarios: options.scenarios,
    },
    metrics: data.metrics,
  };
}

const milliseconds = (number) => (number === undefined ? '-' : `${number.toFixed(1)} ms`);
const percent = (number) => (number === undefined ? '-' : `${(number * 100).toFixed(2)} %`);

function row(cells) {
  return `  ${cells[0].padEnd(16)}${cells.slice(1).map((cell) => String(cell).padStart(13)).join('')}\n`;
}

function crossed(metrics) {
  return Object.entries(metrics).flatMap(([name, { thresholds = {} }]) =>
    Object.entries(thresholds)
      .filter(([, { ok }]) => !ok)
      .map(([threshold]) => `  not held: ${name} ${threshold}\n`),
  );
}

function table(summary) {
  const { metrics } = summary;
  const of = (metric, endpoint, name) => {
    const found = metrics[endpoint === undefined ? metric : `${metric}{endpoint:${endpoint}}`];
    return found ? found.values[name] : undefined;
  };
  const line = (title, endpoint) =>
    row([
      title,
      of('http_reqs', endpoint, 'count') || 0,
      percent(of('http_req_failed', endpoint, 'rate')),
      percent(of('checks', endpoint, 'rate')),
      ...['med', 'p(95)', 'p(99)'].map((stat) => milliseconds(of('http_req_duration', endpoint, stat))),
    ]);
  const broken = crossed(metrics);
  return [
    `\n${summary.profile}, scale ${summary.scale}, up to ${summary.vus_max} virtual users, `,
    `${summary.duration_seconds.toFixed(0)} s, against ${summary.options.target}\n\n`,
    row(['endpoint', 'requests', 'failed', 'checks held', 'median', 'p95', 'p99']),
    ...Object.keys(ENDPOINTS).map((endpoint) => line(endpoint, endpoint)),
    line('all'),
    '\n',
    ...(broken.length > 0 ? broken : ['  all thresholds held\n']),
  ].join('');
}

// k6's handleSummary: where each text goes.
export function outputs(data, settings, options) {
  const summary = summaryOf(data, settings, options);
  const json = JSON.stringify(summary);
  const files = settings.results ? { [`${settings.results}/summary.json`]: `${json}\n` } : {};
  return { stdout: `${table(summary)}\n${BEGIN}\n${json}\n${END}\n`, ...files };
}
