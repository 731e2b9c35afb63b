// An unmodified Helia fetches through a store's delegated routing and trustless gateway, and from nowhere else.
// Arguments: base URL, CID of a file, CID of a folder, a path in it. Prints what came as JSON.
import { createHash } from 'node:crypto'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

// The packages are in the cache, this file is not.
const require = createRequire(join(process.env.NPM_FOLDER, 'package.json'))
const load = async name => import(pathToFileURL(require.resolve(name)))

const { withHTTP } = await load('@helia/http')
const { unixfs } = await load('@helia/unixfs')
const { createHeliaLight } = await load('helia')
const { CID } = await load('multiformats/cid')

const [base, file, folder, path] = process.argv.slice(2)
const helia = await withHTTP(createHeliaLight(), {
  delegatedRouters: [base],
  recursiveGateways: [],
  allowInsecure: true,
  allowLocal: true
}).start()
const files = unixfs(helia)

async function digest (cid, options) {
  const hash = createHash('sha256')
  let length = 0
  for await (const bytes of files.cat(CID.parse(cid), options)) {
    hash.update(bytes)
    length += bytes.length
  }
  return { length, sha256: hash.digest('hex') }
}

const names = []
for await (const entry of files.ls(CID.parse(folder))) {
  names.push(entry.name)
}
console.log(JSON.stringify({
  part: await digest(file, { offset: 300000, length: 1000 }),
  file: await digest(file),
  inside: await digest(folder, { path }),
  names
}))
await helia.stop()
process.exit(0)
