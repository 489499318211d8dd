/** Where the newest events of each stream are, in memory, until the file's index takes them in bulk. */

type Places = { readonly first: number; readonly positions: number[] }

export const recentPlaces = () => {
  const streams = new Map<number, Places>()
  let size = 0

  return {
    size: () => size,
    add(stream_id: number, revision: number, position: number) {
      const places = streams.get(stream_id)
      if (places) places.positions.push(position)
      else streams.set(stream_id, { first: revision, positions: [position] })
      size += 1
    },
    firstRevision: (stream_id: number): number | undefined => streams.get(stream_id)?.first,
    lastRevision(stream_id: number): number | undefined {
      const places = streams.get(stream_id)
      return places && places.first + places.positions.length - 1
    },
    /** Positions of the revisions `from` to `to`, both included, as far as they are here. */
    positions(stream_id: number, from: number, to: number): readonly number[] {
      const places = streams.get(stream_id)
      if (!places || to < places.first) return []
      return places.positions.slice(Math.max(0, from - places.first), to - places.first + 1)
    },
    /** Undoes what a transaction added that was rolled back. */
    forgetAfter(position: number) {
      for (const [stream_id, { positions }] of streams) {
        while ((positions.at(-1) ?? 0) > position) {
          positions.pop()
          size -= 1
        }
        if (positions.length === 0) streams.delete(stream_id)
      }
    },
    clear() {
      streams.clear()
      size = 0
    },
  }
}
