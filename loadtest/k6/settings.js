// What a run is told, by environment variables. The Job sets them; README.md lists them.

function number(name, fallback) {
  const text = __ENV[name];
  if (text === undefined || text === '') {
    return fallback;
  }
  const value = Number(text);
  if (!Number.isFinite(value) || value <= 0) {
    throw new Error(`${name} is "${text}": write a number above 0, such as ${fallback}`);
  }
  return value;
}

function address(name, fallback) {
  const text = (__ENV[name] || fallback).replace(/\/+$/, '');
  if (!/^https?:\/\/[^/\s]+/.test(text)) {
    throw new Error(`${name} is "${text}": write an address with its scheme, such as ${fallback}`);
  }
  return text;
}

export const settings = {
  profile: __ENV.PROFILE || 'load',
  target: address('TARGET', 'http://nginx-thrift.social-network.svc:8080'),
  testid: __ENV.TESTID || 'local',
  // Times the profile's virtual users, or its rate.
  scale: number('SCALE', 1),
  // Times the profile's durations: for trying the scripts out. A run of seconds says nothing about an application.
  timeScale: number('TIME_SCALE', 1),
  // The mean pause of a virtual user between two requests; the profile with a rate has none.
  thinkSeconds: number('THINK_SECONDS', 1),
  // How many users the data Job has registered: username_0 and on.
  users: Math.floor(number('USERS', 962)),
  // A folder for summary.json; without it the summary is on stdout alone.
  results: (__ENV.RESULTS || '').replace(/\/+$/, ''),
};

if (settings.users < 2) {
  throw new Error(`USERS is "${__ENV.USERS}": posts mention other users, so there must be at least 2`);
}
