// Reads the explorer's data files, each once at its first use, and the answers of the live server.

import type {
  ApiError,
  Below,
  Bridges,
  CaptionSearch,
  Catalog,
  Compare,
  ConceptDetail,
  ConceptDetails,
  Concepts,
  Encoded,
  ItemCodes,
  ItemId,
  ItemIndex,
  ItemMap,
  Items,
  Manifest,
  PairBlock,
  PairLedger,
  Run,
  SqlAnswer,
  UserLabel,
  UserLabels,
  Words,
} from "./contract"

import { type Dictionary, halves } from "./parts/ledger"

export type Modality = Encoded["modality"]
export type Image = Items["images"][string]
export type Text = Items["texts"][string]
export type Codes = ItemCodes["images"][string]

/** Data could not be read; the message is shown to the reader. */
export class DataError extends Error {}

const files = new Map<string, Promise<unknown>>()

async function fetchJson(path: string): Promise<unknown> {
  let answer: Response
  try {
    answer = await fetch(path)
  } catch (error) {
    throw new DataError(`${path} could not be reached. Is the server still running?`, { cause: error })
  }
  if (!answer.ok) throw new DataError(`${path} could not be read: the host answered ${answer.status}.`)
  try {
    return await answer.json()
  } catch (error) {
    throw new DataError(`${path} is not valid JSON: it may be cut short.`, { cause: error })
  }
}

function read<T>(path: string): Promise<T> {
  let file = files.get(path)
  if (!file) {
    file = fetchJson(path)
    files.set(path, file)
    file.catch(() => files.delete(path)) // so that "Try again" reads it again
  }
  return file as Promise<T>
}

async function fetchBytes(path: string): Promise<ArrayBuffer> {
  const answer = await fetch(path).catch((error: unknown) => {
    throw new DataError(`${path} could not be reached. Is the server still running?`, { cause: error })
  })
  if (!answer.ok) throw new DataError(`${path} could not be read: the host answered ${answer.status}.`)
  return answer.arrayBuffer()
}

function binary<T>(path: string, form: (bytes: ArrayBuffer) => T): Promise<T> {
  let file = files.get(path)
  if (!file) {
    file = fetchBytes(path.split("/").map(encodeURIComponent).join("/")).then((bytes) => {
      try {
        return form(bytes)
      } catch (error) {
        throw new DataError(`${path} is shorter than it should be: it may be cut short.`, { cause: error })
      }
    })
    files.set(path, file)
    file.catch(() => files.delete(path))
  }
  return file as Promise<T>
}

const folder = (run: Run) => `data/runs/${run.key.split("/").map(encodeURIComponent).join("/")}`

export const manifest = () => read<Manifest>("data/manifest.json")

/** Concepts by their names; `automatic` holds the names of the file where users gave others. */
export interface Named extends Concepts {
  automatic?: Map<number, string>
}

/** The concepts of a run. A label that a user gave stands in place of the automatic name. */
export async function concepts(run: Run): Promise<Named> {
  const [own, labels] = await Promise.all([read<Concepts>(`${folder(run)}/concepts.json`), userLabels()])
  const mine = labels.filter(({ key, concept }) => key === run.key && concept in own.name)
  if (!mine.length) return own
  const name = [...own.name]
  for (const { concept, label } of mine) name[concept] = label
  return { ...own, name, automatic: new Map(mine.map(({ concept }) => [concept, own.name[concept] ?? ""])) }
}

export const bridges = (run: Run) => read<Bridges>(`${folder(run)}/bridges.json`)
export const words = (run: Run) => read<Words>(`${folder(run)}/words.json`)
export const captions = () => read<CaptionSearch>("data/items/search.json")
export const itemIndex = () => read<ItemIndex>("data/items/index.json")
/** What the SQL page shows. Older runs have it in their manifest. */
export async function catalog({ views, macros, examples }: Manifest): Promise<Catalog> {
  return views && examples ? { views, macros: macros ?? [], examples } : read<Catalog>("data/catalog.json")
}
export const compare = () => read<Compare>("data/compare.json")

/** One concept's items, histogram, words and matches; null when the run has no such concept. */
export async function detail(of: Manifest, run: Run, concept: number): Promise<ConceptDetail | null> {
  if (!Number.isInteger(concept) || concept < 0 || concept >= run.concepts) return null
  const block = Math.floor(concept / of.concept_block)
  return (await read<ConceptDetails>(`${folder(run)}/concept/${block}.json`))[concept] ?? null
}

async function block(modality: Modality, item: ItemId): Promise<number | undefined> {
  return (await itemIndex())[plural(modality)][item]
}

const plural = (modality: Modality): "images" | "texts" => (modality === "image" ? "images" : "texts")

/** An image; null when the site does not show it. */
export async function image(id: ItemId): Promise<Image | null> {
  const file = await block("image", id)
  return file === undefined ? null : ((await read<Items>(`data/items/${file}.json`)).images[id] ?? null)
}

/** A caption; null when the site does not show it. */
export async function text(id: ItemId): Promise<Text | null> {
  const file = await block("text", id)
  return file === undefined ? null : ((await read<Items>(`data/items/${file}.json`)).texts[id] ?? null)
}

/** The concepts that reconstruct an item; null when the site has no codes of it. */
export async function codes(run: Run, modality: Modality, id: ItemId): Promise<Codes | null> {
  const file = await block(modality, id)
  if (file === undefined) return null
  return (await read<ItemCodes>(`${folder(run)}/codes/${file}.json`))[plural(modality)][id] ?? null
}

const binaries = new Map<string, Promise<ArrayBuffer>>()

async function fetchBinary(path: string): Promise<ArrayBuffer> {
  const answer = await fetch(path).catch((error: unknown) => {
    throw new DataError(`${path} could not be reached. Is the server still running?`, { cause: error })
  })
  if (!answer.ok) throw new DataError(`${path} could not be read: the host answered ${answer.status}.`)
  return answer.arrayBuffer()
}

/** The directions of a run's concepts, and what its SAE adds to a decoded code. */
export async function dictionary(run: Run): Promise<Dictionary> {
  const path = `${folder(run)}/dictionary.bin`
  const file = binaries.get(path) ?? fetchBinary(path)
  binaries.set(path, file)
  file.catch(() => binaries.delete(path))
  return { rows: halves(await file), dim: run.dim, concepts: run.concepts }
}

/** What splits the similarity of a caption and its image; null when the site has no codes of one of them. */
export async function pairData(
  run: Run,
  caption: ItemId,
  image: ItemId,
): Promise<{ image: PairBlock["images"][string]; text: PairBlock["texts"][string] } | null> {
  const file = await block("text", caption)
  if (file === undefined) return null
  const own = await read<PairBlock>(`${folder(run)}/pairs/${file}.json`)
  const [x, y] = [own.images[image], own.texts[caption]]
  return x && y ? { image: x, text: y } : null
}

/** The labels that users gave to concepts. A host without the file has none. */
export async function userLabels(): Promise<UserLabel[]> {
  return (await read<UserLabels>("data/labels.json")).labels
}

function post(path: string, body: BodyInit, type: string, signal: AbortSignal): Promise<Response> {
  return ask(path, { method: "POST", body, headers: { "Content-Type": type }, signal })
}

/** An answer of the live server. Throws DataError, with the server's reason, when it fails. */
async function ask(path: string, request: RequestInit): Promise<Response> {
  let answer: Response
  try {
    answer = await fetch(path, request)
  } catch (error) {
    if (request.signal?.aborted) throw error
    throw new DataError("The server could not be reached. Is it still running?", { cause: error })
  }
  if (answer.ok) return answer
  const failed = (await answer.json().catch(() => null)) as Partial<ApiError> | null // null when the body is not JSON, such as the error page of a proxy
  throw new DataError(failed?.error ?? `The server answered ${answer.status}.`)
}

/** Live: the answer to one read-only statement. */
export async function sql(query: string, signal: AbortSignal): Promise<SqlAnswer> {
  return (await post("api/sql", JSON.stringify({ query }), "application/json", signal)).json()
}

/** Live: the answer to one read-only statement as CSV. */
export async function sqlCsv(query: string, signal: AbortSignal): Promise<Blob> {
  return (await post("api/sql.csv", JSON.stringify({ query }), "application/json", signal)).blob()
}

/** Live: the ledger of a pair. A picture or a text may stand in place of an id. */
export async function pair(
  run: Run,
  image: ItemId | File,
  caption: ItemId | string,
  without: readonly number[],
  ranks: boolean,
  signal: AbortSignal,
): Promise<PairLedger> {
  const given = typeof image === "number" ? image : await base64(image)
  const body = JSON.stringify({ image: given, caption, without, ranks })
  return (await post(`api/pair?key=${encodeURIComponent(run.key)}`, body, "application/json", signal)).json()
}

async function base64(file: File): Promise<string> {
  const bytes = new Uint8Array(await file.arrayBuffer())
  let text = ""
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000))
  return btoa(text)
}

/** Live: set the label that a user gives to a concept; "" removes it. Returns all labels. */
export async function setLabel(run: Run, concept: number, label: string, signal: AbortSignal): Promise<UserLabel[]> {
  const body = JSON.stringify({ key: run.key, concept, label })
  const labels: UserLabels = await (await post("api/labels", body, "application/json", signal)).json()
  files.set("data/labels.json", Promise.resolve(labels))
  return labels.labels
}

/** Live: a caption or an image, encoded by the study's model and an SAE. */
export async function encode(run: Run, query: string | File, signal: AbortSignal): Promise<Encoded> {
  const path = `api/encode?key=${encodeURIComponent(run.key)}`
  const answer =
    typeof query === "string"
      ? await post(path, JSON.stringify({ text: query }), "application/json", signal)
      : await post(path, query, query.type || "application/octet-stream", signal)
  return answer.json()
}

/** Live: the items on which a concept just does not fire, images first. */
export async function below(run: Run, concept: number, signal: AbortSignal): Promise<Below> {
  return (await ask(`api/below/${concept}?key=${encodeURIComponent(run.key)}`, { signal })).json()
}

/** The items of a map: their ids, images first, and the jackknife group of each. */
export interface MapItems {
  id: Float64Array
  group: Uint8Array
}

export const mapItems = ({ ids, items }: ItemMap) =>
  binary<MapItems>(ids, (bytes) => ({
    id: new Float64Array(bytes, 0, items),
    group: new Uint8Array(bytes, 8 * items, items),
  }))

/** The places of a map's items, 32767 for 1. */
export const places = ({ file, items }: ItemMap) =>
  binary(file, (bytes) => ({ x: new Int16Array(bytes, 0, items), y: new Int16Array(bytes, 2 * items, items) }))

/** The items, by their number on the map, on which a concept fires, and its activations. */
export interface Firings {
  item: Uint32Array
  activation: Float32Array
}

/** The firings of one concept; only where the manifest says that there are files of firings. */
export async function firings(of: Manifest, run: Run, concept: number): Promise<Firings> {
  const size = of.concept_block
  const path = `data/runs/${run.key}/codes/firings-${Math.floor(concept / size)}.bin`
  const block = await binary(path, (bytes) => {
    const start = new Uint32Array(bytes, 0, size + 1)
    const count = start[size] ?? 0
    return {
      start,
      item: new Uint32Array(bytes, 4 * (size + 1), count),
      activation: new Float32Array(bytes, 4 * (size + 1 + count), count),
    }
  })
  const [from, to] = [block.start[concept % size] ?? 0, block.start[(concept % size) + 1] ?? 0]
  return { item: block.item.subarray(from, to), activation: block.activation.subarray(from, to) }
}

/** Live: the answer to one read-only statement as a Parquet file. */
export async function sqlParquet(query: string, signal: AbortSignal): Promise<Blob> {
  return (await post("api/sql.parquet", JSON.stringify({ query }), "application/json", signal)).blob()
}
