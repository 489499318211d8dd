/** Common hardware: an IPMI 2.0 BMC, network boot into the ramdisk, and images written over iSCSI or pulled by the ramdisk. */

import { runProgram } from '../bmc/ipmi-process.ts'
import { type IpmiOptions, type IpmiSecrets, ipmiOptions, ipmiSecrets, ipmitoolBmc } from '../bmc/ipmitool.ts'
import { traffic } from '../bmc/traffic.ts'
import { systemClock } from '../clock.ts'
import { boot } from '../effects/boot.ts'
import { burnIn } from '../effects/burn-in.ts'
import { clean } from '../effects/clean.ts'
import { deploy } from '../effects/deploy.ts'
import { inspect } from '../effects/inspect.ts'
import { management } from '../effects/management.ts'
import { networkBootPlans } from '../effects/plans.ts'
import { power } from '../effects/power.ts'
import type { Driver } from './driver.ts'

/** One for the process: commands to one BMC go one at a time, whoever gives them. */
const governor = traffic(systemClock)

const driver: Driver = {
  doc: 'Common hardware: IPMI 2.0 (RMCP+) through ipmitool, network boot by PXE and iPXE, images by iSCSI or direct.',
  options: ipmiOptions,
  secrets: ipmiSecrets,
  connect: (options, secrets) =>
    ipmitoolBmc(options as IpmiOptions, secrets as IpmiSecrets, { traffic: governor, run: runProgram }),
  deploy_interfaces: ['iscsi', 'direct'],
  interfaces: { power, management, boot, inspect, 'burn-in': burnIn, clean, deploy },
  plan: (effect, ask) => networkBootPlans[effect](ask),
}
export default driver
