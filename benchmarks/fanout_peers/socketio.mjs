// The npm package `socket.io`: one event to everybody.

import { createServer } from 'node:http'
import { Server } from 'socket.io'
import { port, run } from './events.mjs'

const http = createServer()
const io = new Server(http, { transports: ['websocket'], perMessageDeflate: false })
http.listen(port, '127.0.0.1')
run((payload) => io.emit('event', JSON.parse(payload)))
