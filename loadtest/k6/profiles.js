// The six profiles, and what k6 has to hold each of them to.

import { ENDPOINTS, TIMEOUT_SECONDS } from './application.js';

// A profile with `users` is closed: [seconds, virtual users at their end], and a virtual user waits for its answer
// before it asks again. One with `rate` is open: [seconds, requests a second at their end], and a request begins on time
// whatever has become of those before it.
const PROFILES = {
  load: { users: [[120, 100], [600, 100], [120, 0]] },
  stress: { users: [[120, 100], [180, 300], [180, 450], [300, 600], [120, 0]] },
  spike: { users: [[120, 50], [30, 500], [240, 500], [30, 50], [120, 50], [60, 0]] },
  soak: { users: [[120, 75], [1560, 75], [120, 0]] },
  // Connections are not kept from one request to the next: a kept one stays with its pod, and a new pod would get nothing.
  autoscale: { users: [[180, 400], [120, 800], [300, 800], [120, 0]], options: { noVUConnectionReuse: true } },
  latency: {
    rate: [[60, 60], [480, 60], [60, 0]],
    // Enough for a stall of two seconds to pass without a request that begins late.
    virtualUsers: [150, 300],
    limits: { home_timeline: ['p(95)<500', 'p(99)<2000'], user_timeline: ['p(95)<500', 'p(99)<2000'], compose: ['p(95)<1000', 'p(99)<3000'] },
  },
};

const GRACE = '30s';

// What a stage is of, under its line: seconds times users, or requests.
function area(stages) {
  let from = 0;
  let sum = 0;
  for (const [seconds, target] of stages) {
    sum += (seconds * (from + target)) / 2;
    from = target;
  }
  return sum;
}

function scaled(stages, { scale, timeScale }) {
  return stages.map(([seconds, target]) => [
    Math.max(1, Math.round(seconds * timeScale)),
    target === 0 ? 0 : Math.max(1, Math.round(target * scale)),
  ]);
}

const inK6sWords = (stages) => stages.map(([seconds, target]) => ({ duration: `${seconds}s`, target }));

function closed(stages) {
  return { executor: 'ramping-vus', startVUs: 0, stages: inK6sWords(stages), gracefulRampDown: GRACE };
}

function open(stages, [preAllocated, max], { scale }) {
  return {
    executor: 'ramping-arrival-rate',
    startRate: 0,
    timeUnit: '1s',
    stages: inK6sWords(stages),
    preAllocatedVUs: Math.max(2, Math.ceil(preAllocated * scale)),
    maxVUs: Math.max(4, Math.ceil(max * scale)),
  };
}

// A threshold on a metric without samples is not crossed by what is below it, so each run must also show a number of
// requests. The least: a user that waits until its requests time out; of a rate, nine tenths.
function leastRequests(profile, stages) {
  return Math.max(1, Math.floor(profile.rate ? area(stages) * 0.9 : area(stages) / TIMEOUT_SECONDS));
}

function thresholds(profile, stages, { timeScale }) {
  const least = leastRequests(profile, stages);
  // Of a system of which half of all requests fail, no more is learned by going on.
  const hopeless = (threshold) => ({
    threshold,
    abortOnFail: true,
    delayAbortEval: `${Math.max(1, Math.round(60 * timeScale))}s`,
  });
  const held = {
    http_req_failed: ['rate<0.10', hopeless('rate<0.50')],
    checks: ['rate>0.90', hopeless('rate>0.50')],
    http_reqs: [`count>=${least}`],
  };
  for (const [endpoint, { share }] of Object.entries(ENDPOINTS)) {
    // Each by itself: posting is a tenth of the requests, so that without this all posts might fail.
    held[`http_req_failed{endpoint:${endpoint}}`] = ['rate<0.10'];
    held[`checks{endpoint:${endpoint}}`] = ['rate>0.90'];
    held[`http_reqs{endpoint:${endpoint}}`] = [`count>=${Math.max(1, Math.floor((least * share) / 2))}`];
    // k6 gives the summary a metric by endpoint only where a threshold names it: max>=0 is no limit.
    held[`http_req_duration{endpoint:${endpoint}}`] = profile.limits ? profile.limits[endpoint] : ['max>=0'];
  }
  if (profile.rate) {
    held.dropped_iterations = [`count<${Math.max(1, Math.ceil(area(stages) * 0.01))}`];
  }
  return held;
}

// k6's options of the profile that the settings name.
export function optionsOf(settings) {
  const profile = PROFILES[settings.profile];
  if (profile === undefined) {
    throw new Error(`PROFILE is "${settings.profile}": there are ${Object.keys(PROFILES).join(', ')}`);
  }
  const stages = scaled(profile.users || profile.rate, settings);
  const scenario = profile.rate ? open(stages, profile.virtualUsers, settings) : closed(stages);
  return {
    ...profile.options,
    scenarios: { [settings.profile]: { ...scenario, exec: profile.rate ? 'ask' : 'askAndThink', gracefulStop: GRACE } },
    thresholds: thresholds(profile, stages, settings),
    summaryTrendStats: ['avg', 'min', 'med', 'p(90)', 'p(95)', 'p(99)', 'max', 'count'],
    // No url and no name: every query would be a series of its own.
    systemTags: ['scenario', 'status', 'error_code', 'expected_response', 'check'],
    // A Service's address is looked up again, so that its pods may change during a run.
    dns: { ttl: '5s', select: 'roundRobin', policy: 'preferIPv4' },
    maxRedirects: 0,
  };
}
