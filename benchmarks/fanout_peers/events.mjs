// The events of a peer in Node: 128 bytes of JSON each, as benchmarks/topics.py makes them, a batch at a time.

const [, , port, rate, batch] = process.argv.map(Number)

function payload (sequence) {
  const head = `{"id":"${String(sequence).padStart(10, '0')}","topic":"try/bench/t000","ts":${Date.now()}000000,"data":"`
  return head + 'x'.repeat(126 - head.length) + '"}'
}

function run (send) {
  let due = performance.now()
  let sequence = 0
  function turn () {
    // A late batch is left out, not made up for.
    due = Math.max(due + 1000 / rate, performance.now())
    for (let n = 0; n < batch; n++) send(payload(sequence++))
    setTimeout(turn, due - performance.now())
  }
  turn()
}

export { port, run }
