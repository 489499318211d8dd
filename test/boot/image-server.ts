/** A real HTTP server for images that can be slow, cut off, or elsewhere. */
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { TestContext } from 'node:test'

export type Answer = (response: ServerResponse) => void

export async function imageServer(t: TestContext, answers: Readonly<Record<string, Buffer | Answer>>) {
  const asked: string[] = []
  const server = createServer((request, response) => {
    const path = request.url ?? '/'
    asked.push(path)
    const answer = answers[path]
    if (answer === undefined) response.writeHead(404).end()
    else if (Buffer.isBuffer(answer)) response.writeHead(200, { 'content-length': answer.length }).end(answer)
    else answer(response)
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked }
}
