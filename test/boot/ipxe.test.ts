/** iPXE scripts: what they say, and what nobody can make them say. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  bootFilePath,
  firstStageScript,
  localDiskScript,
  parseBootFilePath,
  ramdiskScript,
  unknownScript,
} from '../../src/boot/ipxe.ts'

const base_url = 'http://10.77.0.1:8081'
const mac = '52:54:00:77:00:01'
const token = 'a'.repeat(43)

test('the first stage says who the machine is and asks until it is answered', () => {
  const text = firstStageScript({ base_url })
  assert.match(text, /^#!ipxe\n/)
  assert.match(
    text,
    /chain --replace --autofree http:\/\/10\.77\.0\.1:8081\/boot\.ipxe\?mac=\$\{bootmac\}&uuid=\$\{uuid\}/,
  )
  assert.match(text, /firmware=\$\{platform\}/)
  assert.match(text, /sleep 5\ngoto again\n$/)
})

test('the ramdisk is started with the token, the boot NIC and the names of its initrds', () => {
  const initrds = ['ramdisk', 'burnin'] as const
  const text = ramdiskScript({
    base_url,
    mac,
    token,
    initrds,
    consoles: ['tty0', 'ttyS0,115200n8'],
    kernel_args: ['quiet'],
  })
  assert.match(
    text,
    new RegExp(
      `kernel --name kernel ${base_url}/boot/52-54-00-77-00-01/kernel initrd=ramdisk initrd=burnin console=tty0 ` +
        `console=ttyS0,115200n8 quiet bloomery.url=${base_url} bloomery.token=${token} BOOTIF=01-52-54-00-77-00-01 \\|\\|`,
    ),
  )
  assert.match(text, /initrd --name ramdisk \S+\/ramdisk \|\| goto failed\ninitrd --name burnin \S+\/burnin \|\|/)
})

test('the path of a boot file tells whose it is and which', () => {
  assert.deepEqual(parseBootFilePath(bootFilePath('52:54:00:77:00:0A', 'kernel')), {
    mac: '52:54:00:77:00:0a',
    file: 'kernel',
  })
  for (const path of ['/boot/52-54-00-77-00-01/passwd', '/boot/../kernel', '/boot/52-54-00-77-00-01/kernel/', ''])
    assert.equal(parseBootFilePath(path), null)
})

test('a node without work boots from its own disk, BIOS or UEFI', () => {
  for (const text of [localDiskScript({ reason: 'nothing to do' }), unknownScript({ mac })])
    assert.match(text, /\niseq \$\{platform\} efi && exit \|\|\nsanboot --no-describe --drive 0x80 \|\| exit\n$/)
})

test('no reason, whatever is in it, becomes a command', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (reason) => {
      const lines = localDiskScript({ reason }).split('\n')
      assert.equal(lines.length, 5)
      assert.match(lines[1] ?? '', /^echo [A-Za-z0-9 .,:_/-]*$/)
    }),
  )
})

test('a value that could say more to iPXE is refused', () => {
  const good = { base_url, mac, token, initrds: ['ramdisk'] as const }
  for (const bad of [
    { token: `${'a'.repeat(20)} || shell` },
    { token: 'short' },
    { mac: 'aa\nshell' },
    { kernel_args: ['a b'] },
    { kernel_args: [`\${net0/mac}`] },
    { kernel_args: ['x&&shell'] },
    { consoles: ['ttyS0 init=/bin/sh'] },
    { base_url: 'http://user:pw@10.0.0.1/' },
    { base_url: 'tftp://10.0.0.1/' },
    { base_url: 'http://10.0.0.1/?a=b' },
  ])
    assert.throws(() => ramdiskScript({ ...good, ...bad }), TypeError, JSON.stringify(bad))
})
