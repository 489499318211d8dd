/**
 * The control-plane gap: the part of a step in which neither the node nor the network was the reason for waiting.
 *
 * Time inside `away` belongs to the node, its BMC or the network; the rest is ours. A pause between two looks is ours as
 * well if what we looked for was there when we looked again, since it may have been there all the while.
 */
export type Gap = ReturnType<typeof openGap>

export const openGap = (now_ms: () => number) => {
  const began_ms = now_ms()
  let away_ms = 0
  let inside = 0
  let left_ms = 0
  let pause_ms = 0

  return {
    /** Whatever this waits for is not us. Overlapping waits count once. */
    async away<T>(wait: () => Promise<T>): Promise<T> {
      if (inside++ === 0) left_ms = now_ms()
      try {
        return await wait()
      } finally {
        if (--inside === 0) away_ms += now_ms() - left_ms
      }
    },
    /** A pause between two looks. */
    async pause(sleep: () => Promise<void>): Promise<void> {
      const from_ms = now_ms()
      await sleep()
      pause_ms = now_ms() - from_ms
    },
    /** The look after a pause found nothing new: the pause cost nothing. */
    notYet(): void {
      away_ms += pause_ms
      pause_ms = 0
    },
    total_ms: (): number => Math.max(0, Math.round(now_ms() - began_ms - away_ms)),
  }
}
