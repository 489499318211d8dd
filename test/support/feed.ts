/** Server-sent events as a client reads them. @see https://html.spec.whatwg.org/multipage/server-sent-events.html */

export type ServerSent = { readonly id: string | null; readonly event: string; readonly data: string }

/** Ends when the signal aborts or the server ends it. @throws what is not a stream of events */
export async function* feed(
  url: string,
  signal: AbortSignal,
  headers: Record<string, string> = {},
): AsyncGenerator<ServerSent> {
  const response = await fetch(url, { signal, headers: { accept: 'text/event-stream', ...headers } })
  if (response.status !== 200 || !response.body) throw new Error(`${response.status} ${await response.text()}`)
  let text = ''
  const decoder = new TextDecoder()
  for await (const chunk of response.body) {
    text += decoder.decode(chunk, { stream: true })
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const fields = text.slice(0, end).split('\n')
      text = text.slice(end + 2)
      const field = (name: string) => fields.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2)
      const data = field('data')
      if (data !== undefined) yield { id: field('id') ?? null, event: field('event') ?? 'message', data }
    }
  }
}
