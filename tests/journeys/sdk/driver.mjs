// The JavaScript SDK on a leash: one JSON command a line on stdin, one JSON event a line on stdout.
//
// Every command {"do": ..., "n": 7, ...} is answered {"answer": 7, "result": ...} or {"answer": 7, "error": {...}}; all
// that the SDK says by itself comes as {"event": ..., ...}. The journeys decide; this file only carries.

import { createInterface } from 'node:readline';
import { Centrifuge } from 'centrifuge';

const say = (value) => process.stdout.write(JSON.stringify(value) + '\n');
const position = (ctx) => ctx.streamPosition ?? { offset: 0, epoch: '' };

let client;
const subscriptions = new Map();

function watch(sub) {
  const channel = sub.channel;
  sub.on('subscribing', ({ code, reason }) => say({ event: 'subscribing', channel, code, reason }));
  sub.on('subscribed', (ctx) => say({
    event: 'subscribed', channel, recoverable: ctx.recoverable, was_recovering: ctx.wasRecovering,
    recovered: ctx.recovered, ...position(ctx),
  }));
  sub.on('unsubscribed', ({ code, reason }) => say({ event: 'unsubscribed', channel, code, reason }));
  sub.on('error', ({ error }) => say({ event: 'error', channel, code: error.code, message: error.message }));
  sub.on('publication', ({ data, tags, offset }) =>
    say({ event: 'publication', channel, data, tags: tags ?? {}, offset: offset ?? 0 }));
}

const actions = {
  connect({ url, token }) {
    client = new Centrifuge(url, { token, minReconnectDelay: 50, maxReconnectDelay: 500 });
    client.on('connecting', ({ code, reason }) => say({ event: 'connecting', code, reason }));
    client.on('connected', () => say({ event: 'connected' }));
    client.on('disconnected', ({ code, reason }) => say({ event: 'disconnected', code, reason }));
    client.on('error', ({ error }) => say({ event: 'error', code: error.code, message: error.message }));
    client.connect();
  },
  subscribe({ channel, states }) {
    let sub = subscriptions.get(channel);
    if (sub === undefined) {
      const options = { minResubscribeDelay: 50, maxResubscribeDelay: 500 };
      if (states) {
        options.getState = async () => {
          const state = states.length > 1 ? states.shift() : states[0];
          say({ event: 'get_state', channel, ...state });
          return state;
        };
      }
      sub = client.newSubscription(channel, options);
      subscriptions.set(channel, sub);
      watch(sub);
    }
    sub.subscribe();
  },
  unsubscribe({ channel }) {
    subscriptions.get(channel).unsubscribe();
  },
  hurry({ channel }) {
    // All in one turn: the second subscribe leaves before the first is answered.
    const sub = subscriptions.get(channel);
    sub.subscribe();
    sub.unsubscribe();
    sub.subscribe();
  },
  publish: ({ channel, data }) => client.publish(channel, data),
  rpc: async ({ method, data }) => (await client.rpc(method, data)).data,
  disconnect() {
    client.disconnect();
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  Promise.resolve()
    .then(() => actions[command.do](command))
    .then((result) => say({ answer: command.n, result: result ?? null }))
    .catch((error) => say({ answer: command.n, error: { code: error.code ?? 0, message: String(error.message) } }));
}
process.exit(0);
