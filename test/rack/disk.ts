/** Looks at a node's disk from outside, while its machine runs or when it is off. */
import { open } from 'node:fs/promises'

export const SECTOR_BYTES = 512
export const MIB = 2 ** 20

/** Numbers of the sectors in which a disk differs from the image that was written to it, up to the image's end. */
export const differingSectors = async (disk: string, image: string): Promise<readonly number[]> => {
  const [written, wanted] = [await open(disk), await open(image)]
  const [a, b] = [Buffer.alloc(MIB), Buffer.alloc(MIB)]
  const different: number[] = []
  try {
    for (let at = 0; ; at += MIB) {
      const { bytesRead } = await wanted.read(b, 0, MIB, at)
      if (bytesRead === 0) return different
      await written.read(a, 0, bytesRead, at)
      if (a.compare(b, 0, bytesRead, 0, bytesRead) === 0) continue
      for (let from = 0; from < bytesRead; from += SECTOR_BYTES) {
        const to = from + SECTOR_BYTES
        if (a.compare(b, from, to, from, to) !== 0) different.push((at + from) / SECTOR_BYTES)
      }
    }
  } finally {
    await Promise.all([written.close(), wanted.close()])
  }
}

/** Whether both ends of a disk, a mebibyte each, read as zero. */
export const hasBlankEnds = async (disk: string): Promise<boolean> => {
  const file = await open(disk)
  const zeros = Buffer.alloc(MIB)
  try {
    const { size } = await file.stat()
    for (const at of [0, size - MIB]) {
      const { buffer } = await file.read(Buffer.alloc(MIB), 0, MIB, at)
      if (!buffer.equals(zeros)) return false
    }
    return true
  } finally {
    await file.close()
  }
}
