// k6 run main.js, with PROFILE, TARGET and the other variables of settings.js. Nothing is imported from the network.

import { sleep } from 'k6';
import { answers, askSomething } from './application.js';
import { optionsOf } from './profiles.js';
import { settings } from './settings.js';
import { outputs } from './summary.js';

export const options = optionsOf(settings);

const TRIES = 5;

export function setup() {
  let last;
  for (let number = 1; number <= TRIES; number += 1) {
    last = answers(settings);
    if (last.answered) {
      return { started: new Date().toISOString() };
    }
    if (number < TRIES) {
      sleep(number * settings.timeScale);
    }
  }
  throw new Error(
    `nothing answers at ${settings.target} (${last.error || 'no answer'}): is TARGET the address of nginx-thrift as a ` +
      'pod reaches it, and is the pod Ready? kubectl -n social-network get pods,svc',
  );
}

// One request: an open profile's iteration.
export function ask() {
  askSomething(settings);
}

// A closed profile's: one request, and a pause of half to one and a half of the mean, so that users do not march in step.
export function askAndThink() {
  askSomething(settings);
  sleep(settings.thinkSeconds * (0.5 + Math.random()));
}

export function handleSummary(data) {
  return outputs(data, settings, options);
}
