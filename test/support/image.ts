/** The image that tests ask for when it does not matter which. */
export const CHECKSUM = `sha256:${'ab'.repeat(32)}`
export const IMAGE = { image: { url: 'http://images.example/os.raw', format: 'raw', checksum: CHECKSUM } }
