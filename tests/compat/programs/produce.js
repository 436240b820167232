// Writes the lines of a plan (tests/compat/plan.py) with a client of Node.
// arguments: client bootstrap topic codec plain|transactions plan
const fs = require('fs')
const [client, bootstrap, topic, codec, mode, plan] = process.argv.slice(2)
const transactional = mode === 'transactions'

const content = field => (field === '-' ? null : Buffer.from(field.slice(1), 'base64'))
const lines = fs.readFileSync(plan, 'utf8').trimEnd().split('\n').map(row => {
  const [key, value, timestamp, headers] = row.split('\t')
  const pairs = headers ? headers.split(',').map(pair => pair.split(':').map(content)) : []
  return {key: content(key), value: content(value), timestamp: timestamp === '-' ? undefined : timestamp, pairs}
})

// Every fifth chunk is first written into a transaction that is aborted.
function* chunks () {
  if (!transactional) {
    yield [lines, true]
    return
  }
  for (let number = 0; number * 50 < lines.length; number++) {
    const chunk = lines.slice(number * 50, number * 50 + 50)
    if (number % 5 === 4) yield [chunk, false]
    yield [chunk, true]
  }
}

async function kafkajs () {
  const {Kafka, CompressionTypes, CompressionCodecs, logLevel} = require('kafkajs')
  CompressionCodecs[CompressionTypes.Snappy] = () => {
    const {compress, uncompress} = require('snappy')
    return {compress: async encoder => compress(encoder.buffer), decompress: async buffer => uncompress(buffer)}
  }
  const kafka = new Kafka({brokers: [bootstrap], logLevel: logLevel.NOTHING})
  const producer = kafka.producer(transactional
    ? {transactionalId: `compat-${Date.now()}`, idempotent: true, maxInFlightRequests: 1}
    : {})
  await producer.connect()
  const compression = {none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy}[codec]
  for (const [chunk, committed] of chunks()) {
    const into = transactional ? await producer.transaction() : producer
    const messages = chunk.map(({key, value, timestamp, pairs}) => {
      const headers = {}
      for (const [name, content] of pairs) {
        const text = name.toString()
        headers[text] = text in headers ? [].concat(headers[text], [content]) : content
      }
      return {key, value, timestamp, headers}
    })
    for (let at = 0; at < messages.length; at += 100) await into.send({topic, compression, messages: messages.slice(at, at + 100)})
    if (transactional) await (committed ? into.commit() : into.abort())
  }
  await producer.disconnect()
}

async function platformatic () {
  const {Producer, compatibilityPartitioner} = require('@platformatic/kafka')
  const producer = new Producer({clientId: 'compat', bootstrapBrokers: [bootstrap], partitioner: compatibilityPartitioner})
  for (let at = 0; at < lines.length; at += 100) {
    const messages = lines.slice(at, at + 100).map(({key, value, timestamp, pairs}) => ({
      topic, key, value, headers: new Map(pairs), ...(timestamp === undefined ? {} : {timestamp: BigInt(timestamp)})
    }))
    await producer.send({messages, compression: codec, acks: -1})
  }
  await producer.close()
}

;(client === 'kafkajs' ? kafkajs() : platformatic()).catch(error => {
  console.error(error)
  process.exit(1)
})
