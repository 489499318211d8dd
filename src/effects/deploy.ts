/**
 * Deploy steps: the image is fetched and believed only by its checksum, written to the root disk, and given its config
 * drive. Two ways to write: `iscsi` (the ramdisk exports the disk, the service writes into it and reads it back) and
 * `direct` (the ramdisk pulls the image itself).
 */
import { randomBytes } from 'node:crypto'
import type { EventData } from '../../machines/node/machine.ts'
import type { JsonObject } from '../../machines/node/phase.ts'
import { configDrive } from '../boot/config-drive.ts'
import { ImageError } from '../boot/image-source.ts'
import type { VerifiedImage } from '../boot/images.ts'
import { IscsiError, newChap, verifyImage, writeImage } from '../boot/iscsi.ts'
import { HEAD_BYTES, planConfigPartition } from '../boot/partitions.ts'
import { chooseRootDisk } from '../boot/root-device.ts'
import { type AgentDisk, BROKEN_DOWNLOAD, inventoryOf, named, order, tryOrder, WRONG_CHECKSUM } from './agent.ts'
import { whileOn } from './awake.ts'
import { type Interface, type Job, StepFailure } from './job.ts'

const SECTOR_BYTES = 512
/** A download that breaks off (the service was restarted, a cable was pulled) is begun again so often. */
const MAX_PULLS = 5
const PULL_AGAIN_AFTER_MS = 2_000

type Deployment = EventData<'DeploymentRequested'>
const requestOf = (job: Job) => job.node().work?.request.data as unknown as Deployment

export const deploy: Interface = {
  /** Before the node is touched: a wrong checksum or a wrong address costs nothing. */
  image: {
    repeatable: true,
    async run(job) {
      const image = await fetchImage(job)
      image.release()
      return { bytes: image.bytes, virtual_bytes: image.virtual_bytes, checksum: requestOf(job).image.checksum }
    },
  },
  'write-iscsi': { repeatable: true, run: (job) => writeByIscsi(job) },
  'write-direct': { repeatable: true, run: (job) => writeDirect(job) },
  'config-drive': { repeatable: true, run: (job) => writeConfigDrive(job) },
}

const fetchImage = async (job: Job): Promise<VerifiedImage> => {
  const { url, format, compression, checksum } = requestOf(job).image
  job.waitFor(`the image ${url}`)
  try {
    return await job.gap.away(() =>
      job.services.images.fetchVerified({ url, format, compression, checksum } as never, {
        signal: job.signal,
        onProgress: (done, total) => job.progress({ done, total: total ?? 0, unit: 'bytes' }),
      }),
    )
  } catch (error) {
    if (error instanceof ImageError) throw new StepFailure(`image-${error.code}`, error.message)
    throw error
  }
}

const rootDisk = async (job: Job): Promise<AgentDisk> => {
  const { disks } = await inventoryOf(job)
  const choice = chooseRootDisk(disks, requestOf(job).root_device)
  if (choice.kind === 'none') throw new StepFailure('no-root-disk', choice.problem)
  return choice.disk as AgentDisk
}

/**
 * Each time that this is begun the disk is exported anew under a new name and secret, and what was exported before is
 * taken down first: a writer that survived somewhere cannot go on.
 */
const writeByIscsi = async (job: Job): Promise<JsonObject> => {
  const disk = await rootDisk(job)
  const image = await fetchImage(job)
  const { format } = requestOf(job).image
  try {
    if (image.virtual_bytes !== null && image.virtual_bytes > disk.bytes) {
      const sizes = `the image takes ${image.virtual_bytes} bytes, ${disk.name} has ${disk.bytes}`
      throw new StepFailure('disk-too-small', sizes)
    }
    const chap = newChap(randomBytes)
    const iqn = `iqn.2026-01.bloomery:${job.id}.${job.attempt}.${job.run}`
    const exported = await order(job, 'export', {
      args: { disk: disk.name, iqn, user: chap.user, secret: chap.secret },
      name: `export.${job.run}`,
    })
    const target = { portal: String(exported.body['portal']), iqn, lun: 0, ...chap }
    const total = image.virtual_bytes ?? image.bytes
    const common = { path: image.path, format: format as never, target }
    const began_ms = job.clock.now().getTime()
    job.waitFor(`the image to be written to ${disk.name}`)
    const onProgress = (part: number) => job.progress({ done: Math.round(part * total), total, unit: 'bytes' })
    await job.gap.away(() => whileOn(job, (signal) => writeImage({ ...common, signal, onProgress })))
    const written_ms = job.clock.now().getTime()
    job.waitFor(`the image to be read back from ${disk.name}`)
    await job.gap.away(() =>
      whileOn(job, (signal) => verifyImage({ ...common, signal, virtual_bytes: total, onProgress })),
    )
    const verified_ms = job.clock.now().getTime()
    await order(job, 'unexport', { name: `unexport.${job.run}` })
    return {
      root_disk: named(disk),
      bytes: total,
      write_ms: written_ms - began_ms,
      verify_ms: verified_ms - written_ms,
      verified: 'read back and compared',
    }
  } catch (error) {
    if (error instanceof IscsiError) throw new StepFailure(`iscsi-${error.code}`, error.message)
    throw error
  } finally {
    image.release()
  }
}

/**
 * The checksum is computed on the way; the first mebibyte is written last, and only when the checksum is right. After a
 * restart of the service the same order is given again: an agent that is still at it goes on.
 */
const writeDirect = async (job: Job): Promise<JsonObject> => {
  const disk = await rootDisk(job)
  const { url, compression, checksum } = requestOf(job).image
  const isForeign = url.startsWith('http:')
  const image = isForeign ? null : await fetchImage(job)
  try {
    for (let pull = 1; ; pull++) {
      const end = await tryOrder(job, 'pull', {
        args: {
          // An agent speaks no TLS, and has no folders of ours: such images come through the service.
          url: isForeign
            ? url
            : `${job.services.provisioning_url}/agent/data?order=${job.attempt}.${job.index}.pull.${pull}`,
          disk: disk.name,
          compression,
          checksum,
          size: image?.bytes ?? 0,
          auth: isForeign ? 'none' : 'session',
        },
        ...(image ? { data: { file: image.path } } : {}),
        name: `pull.${pull}`,
      })
      if (end.rc === 0) return { ...end.body, root_disk: named(disk), verified: 'checksum of what was downloaded' }
      const reason = `image ${url}: ${String(end.body['reason'] ?? `the agent ended it with code ${end.rc}`)}`
      if (end.rc === WRONG_CHECKSUM) {
        throw new StepFailure('image-wrong-checksum', `${reason}; nothing bootable is on ${disk.name}`, end.body)
      }
      if (end.rc !== BROKEN_DOWNLOAD || pull === MAX_PULLS) throw new StepFailure('pull-failed', reason, end.body)
      job.waitFor(`the image to be pulled again: ${reason}`)
      await job.gap.away(() => job.clock.sleep(PULL_AGAIN_AFTER_MS, job.signal))
      job.signal.throwIfAborted()
    }
  } finally {
    image?.release()
  }
}

const writeConfigDrive = async (job: Job): Promise<JsonObject> => {
  const { root_disk } = (job.node().work?.results ?? []).findLast((evidence) => evidence['root_disk']) ?? {}
  const disk = root_disk as { name: string; bytes: number } | undefined
  if (!disk) throw new StepFailure('no-root-disk', 'no step before this one has written a root disk')
  const iso = await configDrive(contentsOf(job), { signal: job.signal })
  const head = await order(job, 'read', {
    args: { disk: disk.name, offset: 0, length: HEAD_BYTES },
    name: `read.${job.run}`,
  })
  const sectors = head.uploads.get('sectors')?.content
  if (!sectors) throw new StepFailure('agent-read', 'the ramdisk sent no sectors')
  const plan = planConfigPartition({
    head: sectors,
    disk_bytes: disk.bytes,
    iso_bytes: iso.length,
    sector_bytes: SECTOR_BYTES,
  })
  if (plan.kind === 'problem') throw new StepFailure(`partition-${plan.problem}`, plan.message)
  // The contents first, the table that leads to them last.
  const writes = [{ offset: plan.partition.offset, bytes: iso }, ...plan.writes]
  for (const [place, { offset, bytes }] of writes.entries()) {
    await order(job, 'write', {
      args: { disk: disk.name, offset, length: bytes.length },
      data: bytes,
      name: `write.${job.run}.${place}`,
    })
  }
  return { config_drive: { offset: plan.partition.offset, bytes: iso.length } }
}

/** What the tenant's image reads of itself; the parts that may hold secrets come from the vault. */
const contentsOf = (job: Job): Parameters<typeof configDrive>[0] => {
  const { instance_id, config_drive, config_drive_secret: secret } = requestOf(job)
  const { name } = job.node().facts
  const { meta_data = {}, network_data, vendor_data } = (config_drive ?? {}) as Record<string, JsonObject | undefined>
  const phone_home_url = `${job.services.provisioning_url}/phone-home`
  const kept = (secret && job.services.vault.get(job.id, secret.name, secret.version)?.value) as Kept
  const meta = (meta_data['meta'] ?? {}) as JsonObject
  return {
    meta_data: { hostname: name, name, ...meta_data, uuid: instance_id, meta: { ...meta, phone_home_url } },
    user_data: kept?.user_data,
    network_data,
    vendor_data: vendor_data ?? {
      // cloud-init phones home by itself when it is told where.
      'cloud-init': `#cloud-config\nphone_home:\n  url: ${phone_home_url}\n  post: [instance_id, hostname]\n  tries: 20\n`,
    },
  }
}

type Kept = { readonly user_data?: string } | null | undefined
