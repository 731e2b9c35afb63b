// CIDs by the npm importer. Standard input: one JSON object a line, {id, path, profile, hidden?, meta?, chunk?, version?, raw?};
// standard output: {id, cid} for each.
import { createReadStream, lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

// the packages are in the cache, not beside this file
const packages = createRequire(join(process.argv[2], 'index.js'))
const load = async (name) => await import(pathToFileURL(packages.resolve(name)))
const { importer } = await load('ipfs-unixfs-importer')
const { fixedSize } = await load('ipfs-unixfs-importer/chunker')
const { BlackHoleBlockstore } = await load('blockstore-core/black-hole')

function metaOf (path) {
  const stat = lstatSync(path, { bigint: true })
  const nsecs = Number(stat.mtimeNs % 1000000000n)
  const mtime = { secs: stat.mtimeNs / 1000000000n, ...(nsecs > 0 ? { nsecs } : {}) }
  return stat.isSymbolicLink() ? { mtime } : { mtime, mode: Number(stat.mode & 0o7777n) }
}

function * walk (path, name, options) {
  const stat = lstatSync(path)
  const meta = options.meta ? metaOf(path) : {}
  if (stat.isSymbolicLink()) {
    yield { path: name, link: readlinkSync(path), ...meta }
  } else if (stat.isFile()) {
    yield { path: name, content: stat.size > 1 << 20 ? createReadStream(path) : readFileSync(path), ...meta }
  } else {
    yield { path: name, ...meta }
    for (const entry of readdirSync(path)) {
      if (options.hidden || !entry.startsWith('.')) yield * walk(join(path, entry), name + '/' + entry, options)
    }
  }
}

const store = new BlackHoleBlockstore()
for await (const line of createInterface({ input: process.stdin })) {
  const { id, path, profile, hidden, meta, chunk, version, raw } = JSON.parse(line)
  const options = { profile }
  if (chunk != null) options.chunker = fixedSize({ chunkSize: chunk })
  if (version != null) options.cidVersion = version
  if (raw != null) options.rawLeaves = raw
  let cid
  for await (const entry of importer(walk(path, 'c', { hidden, meta }), store, options)) {
    if (entry.path === 'c') cid = entry.cid.toString()
  }
  console.log(JSON.stringify({ id, cid }))
}
