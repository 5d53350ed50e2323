// The npm package `ws`, as its README broadcasts: the event is encoded once, and each client sent to.

import { WebSocketServer } from 'ws'
import { port, run } from './events.mjs'

const server = new WebSocketServer({ host: '127.0.0.1', port, perMessageDeflate: false })
run((payload) => {
  const data = Buffer.from(payload)
  for (const client of server.clients) client.send(data, { binary: false })
})
