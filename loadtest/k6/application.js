// The social network's API as wrk2 uses it: what is asked, how often, and what makes an answer right.
//
// A read of nothing is a 200 too, so a status proves no work: the posts have to be there.

import http from 'k6/http';
import { check } from 'k6';

// The application's own time limit between its services. Who waits for longer than this has no answer.
export const TIMEOUT_SECONDS = 10;

const POSTS_A_READ = 10;
// The data Job gives each user more posts than this, so no read begins behind the last.
const LATEST_START = 4;

export const ENDPOINTS = {
  home_timeline: { share: 0.6, ask: (to) => readTimeline(to, 'home_timeline', 'home-timeline') },
  user_timeline: { share: 0.3, ask: (to) => readTimeline(to, 'user_timeline', 'user-timeline') },
  compose: { share: 0.1, ask: (to) => composePost(to) },
};

const below = (number) => Math.floor(Math.random() * number);
const between = (least, most) => least + below(most - least + 1);

function characters(count, alphabet) {
  let text = '';
  for (let i = 0; i < count; i += 1) {
    text += alphabet[below(alphabet.length)];
  }
  return text;
}

const DIGITS = '0123456789';
const LETTERS = `${DIGITS}abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ`;

const several = (least, most, one) => Array.from({ length: between(least, most) }, one);

// An endpoint by its share, and one request of it.
export function askSomething(settings) {
  const drawn = Math.random();
  let sum = 0;
  for (const { share, ask } of Object.values(ENDPOINTS)) {
    sum += share;
    if (drawn < sum) {
      return ask(settings);
    }
  }
  return ENDPOINTS.home_timeline.ask(settings);
}

const parameters = (endpoint) => ({ tags: { endpoint }, timeout: `${TIMEOUT_SECONDS}s` });

const timelineUrl = (target, path, user, start) =>
  `${target}/wrk2-api/${path}/read?user_id=${user}&start=${start}&stop=${start + POSTS_A_READ}`;

// The posts of an answer; none if it is not what it should be. An empty list of the application's is "{}".
function posts(response) {
  if (response.status !== 200 || !response.body) {
    return [];
  }
  try {
    const read = JSON.parse(response.body);
    return Array.isArray(read) ? read : [];
  } catch {
    return [];
  }
}

function readTimeline({ target, users }, endpoint, path) {
  const user = below(users);
  const response = http.get(timelineUrl(target, path, user, below(LATEST_START + 1)), parameters(endpoint));
  const whose = endpoint === 'user_timeline' ? String(user) : undefined;
  const right = (post) =>
    post.post_id && post.text && post.creator && (whose === undefined || String(post.creator.user_id) === whose);
  check(
    response,
    {
      'answered with 200': (r) => r.status === 200,
      'holds the posts': (r) => {
        const read = posts(r);
        return read.length > 0 && read.every(right);
      },
    },
    { endpoint },
  );
}

function composePost({ target, users }) {
  const user = below(users);
  const mentions = several(1, 5, () => ` @username_${below(users)}`);
  const urls = several(1, 5, () => ` http://${characters(64, LETTERS)}`);
  const media = several(1, 4, () => characters(18, DIGITS));
  const response = http.post(
    `${target}/wrk2-api/post/compose`,
    {
      username: `username_${user}`,
      user_id: String(user),
      text: characters(256, LETTERS) + mentions.join('') + urls.join(''),
      media_ids: JSON.stringify(media),
      media_types: JSON.stringify(media.map(() => 'png')),
      post_type: '0',
    },
    parameters('compose'),
  );
  check(
    response,
    {
      'answered with 200': (r) => r.status === 200,
      'says it is posted': (r) => String(r.body || '').includes('Successfully upload post'),
    },
    { endpoint: 'compose' },
  );
}

// One read outside the measurement: whatever answers is there. What is wrong with it is for the checks to say.
export function answers({ target }) {
  const any = http.expectedStatuses({ min: 100, max: 599 });
  const response = http.get(timelineUrl(target, 'home-timeline', 0, 0), { responseCallback: any, timeout: '5s' });
  return { answered: response.status !== 0, error: response.error };
}
