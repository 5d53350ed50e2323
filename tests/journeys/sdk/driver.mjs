// The JavaScript SDK on a leash: one JSON command a line on stdin, one JSON event a line on stdout.
//
// Every command {"do": ..., "n": 7, ...} is answered {"answer": 7, "result": ...} or {"answer": 7, "error": {...}}; all
// that the SDK says by itself comes as {"event": ..., ...}. The journeys decide; this file only carries. With the
// argument "protobuf" it is the SDK's other build: payloads are bytes there, and JSON is made of them here.

import { createInterface } from 'node:readline';

const protobuf = process.argv[2] === 'protobuf';
const { Centrifuge } = await import(protobuf ? 'centrifuge/build/protobuf' : 'centrifuge');

const packed = (data) => (protobuf ? new TextEncoder().encode(JSON.stringify(data)) : data);
const unpacked = (data) => (protobuf ? JSON.parse(new TextDecoder().decode(data)) : data);
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
  sub.on('join', ({ info }) => say({ event: 'join', channel, user: info.user }));
  sub.on('leave', ({ info }) => say({ event: 'leave', channel, user: info.user }));
  sub.on('publication', ({ data, tags, offset }) =>
    say({ event: 'publication', channel, data: unpacked(data), tags: tags ?? {}, offset: offset ?? 0 }));
}

const actions = {
  connect({ url, token, fresh }) {
    const getToken = async () => {
      say({ event: 'get_token' });
      return fresh.shift();
    };
    const options = { token, minReconnectDelay: 50, maxReconnectDelay: 500 };
    client = new Centrifuge(url, fresh.length ? { ...options, getToken } : options);
    client.on('connecting', ({ code, reason }) => say({ event: 'connecting', code, reason }));
    client.on('connected', () => say({ event: 'connected' }));
    client.on('disconnected', ({ code, reason }) => say({ event: 'disconnected', code, reason }));
    client.on('subscribed', (ctx) => say({
      event: 'given', channel: ctx.channel, recoverable: ctx.recoverable, offset: position(ctx).offset,
    }));
    client.on('unsubscribed', ({ channel }) => say({ event: 'taken', channel }));
    client.on('publication', ({ channel, data, tags, offset }) =>
      say({ event: 'publication', channel, data: unpacked(data), tags: tags ?? {}, offset: offset ?? 0 }));
    client.on('error', ({ error }) => say({ event: 'error', code: error.code, message: error.message }));
    client.connect();
  },
  subscribe({ channel, states, joinLeave, tokens }) {
    let sub = subscriptions.get(channel);
    if (sub === undefined) {
      const options = { minResubscribeDelay: 50, maxResubscribeDelay: 500, joinLeave };
      if (states) {
        options.getState = async () => {
          const state = states.length > 1 ? states.shift() : states[0];
          say({ event: 'get_state', channel, ...state });
          return state;
        };
      }
      if (tokens.length) {
        options.getToken = async () => {
          say({ event: 'get_token', channel });
          const found = tokens.shift();
          if (!found) throw new Error('there is none');
          return found;
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
  publish: ({ channel, data }) => client.publish(channel, packed(data)),
  rpc: async ({ method, data }) => unpacked((await client.rpc(method, packed(data))).data),
  history: async ({ channel, limit, reverse }) => {
    const { publications, offset, epoch } = await subscriptions.get(channel).history({ limit, reverse });
    return { data: publications.map((pub) => unpacked(pub.data)), offset, epoch };
  },
  presence: async ({ channel }) => {
    const { clients } = await subscriptions.get(channel).presence();
    const { numClients, numUsers } = await subscriptions.get(channel).presenceStats();
    return { users: Object.values(clients).map((info) => info.user).sort(), clients: numClients, people: numUsers };
  },
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
